"""Layers, containers, losses and initialisation, with PyTorch's names."""

from frontend import functional
from frontend.nn import init
from frontend.nn.activation import *
from frontend.nn.attention import *
from frontend.nn.cache import *
from frontend.nn.containers import *
from frontend.nn.convolution import *
from frontend.nn.dropout import *
from frontend.nn.lazy import *
from frontend.nn.linear import *
from frontend.nn.losses import *
from frontend.nn.module import Module
from frontend.nn.normalization import *
from frontend.nn.padding import *
from frontend.nn.parameter import Buffer, Parameter
from frontend.nn.pooling import *
from frontend.nn.positions import *
from frontend.nn.recurrent import *
from frontend.nn.recurrent_cells import *
from frontend.nn.shaping import *
from frontend.nn.sparse import *
from frontend.nn.transformer import *
from frontend.nn.vision import *
