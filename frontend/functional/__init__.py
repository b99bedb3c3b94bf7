"""The functions of neural networks, with PyTorch's names, arguments and meanings. ``F`` in ``from tenon import F``."""

from frontend.elementwise import *  # one function for every elementwise op record
from frontend.functional.activations import *
from frontend.functional.adaptive_pooling import *
from frontend.functional.attention import *
from frontend.functional.control import *
from frontend.functional.convolution import *
from frontend.functional.ctc import *
from frontend.functional.dropout import *
from frontend.functional.linear import *
from frontend.functional.loops import *
from frontend.functional.losses import *
from frontend.functional.normalization import *
from frontend.functional.padding import *
from frontend.functional.pooling import *
from frontend.functional.positions import *
from frontend.functional.sampling import *
from frontend.functional.sparse import *
from frontend.functional.vision import *
from frontend.reducing import logsumexp
from frontend.shaping import flatten
