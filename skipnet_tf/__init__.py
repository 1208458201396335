"""SkipNet in Keras 3: residual networks that skip blocks image by image."""

from skipnet_tf import flops
from skipnet_tf import losses
from skipnet_tf import objectives
from skipnet_tf import optimizers
from skipnet_tf import schedules
from skipnet_tf.distillation import Distillation
from skipnet_tf.elastic import Elastic
from skipnet_tf.export import export_saved_model
from skipnet_tf.imitation import Imitation
from skipnet_tf.interop import load_keras_weights
from skipnet_tf.interop import load_pytorch_weights
from skipnet_tf.interop import match_shortcuts
from skipnet_tf.models import cifar_resnet
from skipnet_tf.models import cifar_skipnet
from skipnet_tf.models import from_resnet
from skipnet_tf.models import imagenet_resnet
from skipnet_tf.models import imagenet_skipnet
from skipnet_tf.peers import Budget
from skipnet_tf.peers import TargetRate
from skipnet_tf.reinforce import HybridReinforce
from skipnet_tf.reinforce import Reinforce
from skipnet_tf.resnet import ResNet
from skipnet_tf.skipnet import SkipNet
from skipnet_tf.stages import Supervised
from skipnet_tf.state_dicts import read_state_dict
from skipnet_tf.verification import VerificationError
from skipnet_tf.verification import verify_saved_model
from skipnet_tf.version import VERSION

__version__ = VERSION

__all__ = [
    "Budget",
    "Distillation",
    "Elastic",
    "HybridReinforce",
    "Imitation",
    "Reinforce",
    "ResNet",
    "SkipNet",
    "Supervised",
    "TargetRate",
    "VerificationError",
    "cifar_resnet",
    "cifar_skipnet",
    "export_saved_model",
    "flops",
    "from_resnet",
    "imagenet_resnet",
    "imagenet_skipnet",
    "load_keras_weights",
    "load_pytorch_weights",
    "losses",
    "match_shortcuts",
    "objectives",
    "optimizers",
    "read_state_dict",
    "schedules",
    "verify_saved_model",
]
