"""The command line of ComfyUI 0.3.64: every option by name, so that what starts it starts this.

Options about GPUs, number formats and memory are accepted and mean nothing here.
"""

import argparse
import enum
import os

import comfy.options


def existing_directory(path: str) -> str:
    """An argument that must be a readable folder."""
    if not os.path.exists(path):
        raise argparse.ArgumentTypeError(f"The path '{path}' does not exist.")
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"'{path}' is not a directory.")
    if not os.access(path, os.R_OK):
        raise argparse.ArgumentTypeError(f"You do not have read permissions for '{path}'.")
    return path


class PerformanceFeature(enum.Enum):
    """What --fast takes."""

    Fp16Accumulation = "fp16_accumulation"
    Fp8MatrixMultiplication = "fp8_matrix_mult"
    CublasOps = "cublas_ops"
    AutoTune = "autotune"


parser = argparse.ArgumentParser()

# The server
parser.add_argument(
    "--listen",
    default="127.0.0.1",
    metavar="IP",
    nargs="?",
    const="0.0.0.0,::",
    help="Addresses to listen on, separated by commas; all of them if no value is given.",
)
parser.add_argument("--port", type=int, default=8188, help="The port to listen on.")
parser.add_argument("--tls-keyfile", help="A TLS key file; with --tls-certfile: https.")
parser.add_argument("--tls-certfile", help="A TLS certificate file.")
parser.add_argument(
    "--enable-cors-header",
    default=None,
    metavar="ORIGIN",
    nargs="?",
    const="*",
    help="Allow this origin, or all.",
)
parser.add_argument(
    "--max-upload-size", type=float, default=100, help="The largest request body, in MB."
)

# Folders
parser.add_argument(
    "--base-directory",
    default=None,
    help="The folder of models, custom_nodes, input, output, temp and user.",
)
parser.add_argument(
    "--extra-model-paths-config",
    default=None,
    metavar="PATH",
    nargs="+",
    action="append",
    help="More extra_model_paths.yaml files.",
)
parser.add_argument("--output-directory", default=None, help="Overrides --base-directory.")
parser.add_argument(
    "--temp-directory", default=None, help="Its sub-folder temp/ is used. Overrides the base."
)
parser.add_argument("--input-directory", default=None, help="Overrides --base-directory.")

parser.add_argument("--auto-launch", action="store_true", help="Open the page in a browser.")
parser.add_argument("--disable-auto-launch", action="store_true", help="Do not open a browser.")

# Devices, number formats and memory: accepted without effect
parser.add_argument("--cuda-device", type=int, default=None, metavar="DEVICE_ID")
parser.add_argument("--default-device", type=int, default=None, metavar="DEFAULT_DEVICE_ID")
cm_group = parser.add_mutually_exclusive_group()
cm_group.add_argument("--cuda-malloc", action="store_true")
cm_group.add_argument("--disable-cuda-malloc", action="store_true")
fp_group = parser.add_mutually_exclusive_group()
fp_group.add_argument("--force-fp32", action="store_true")
fp_group.add_argument("--force-fp16", action="store_true")
fpunet_group = parser.add_mutually_exclusive_group()
fpunet_group.add_argument("--fp32-unet", action="store_true")
fpunet_group.add_argument("--fp64-unet", action="store_true")
fpunet_group.add_argument("--bf16-unet", action="store_true")
fpunet_group.add_argument("--fp16-unet", action="store_true")
fpunet_group.add_argument("--fp8_e4m3fn-unet", action="store_true")
fpunet_group.add_argument("--fp8_e5m2-unet", action="store_true")
fpunet_group.add_argument("--fp8_e8m0fnu-unet", action="store_true")
fpvae_group = parser.add_mutually_exclusive_group()
fpvae_group.add_argument("--fp16-vae", action="store_true")
fpvae_group.add_argument("--fp32-vae", action="store_true")
fpvae_group.add_argument("--bf16-vae", action="store_true")
parser.add_argument("--cpu-vae", action="store_true")
fpte_group = parser.add_mutually_exclusive_group()
fpte_group.add_argument("--fp8_e4m3fn-text-enc", action="store_true")
fpte_group.add_argument("--fp8_e5m2-text-enc", action="store_true")
fpte_group.add_argument("--fp16-text-enc", action="store_true")
fpte_group.add_argument("--fp32-text-enc", action="store_true")
fpte_group.add_argument("--bf16-text-enc", action="store_true")
parser.add_argument("--force-channels-last", action="store_true")
parser.add_argument(
    "--directml", type=int, nargs="?", metavar="DIRECTML_DEVICE", const=-1, default=None
)
parser.add_argument("--oneapi-device-selector", default=None, metavar="SELECTOR_STRING")
parser.add_argument("--disable-ipex-optimize", action="store_true")
parser.add_argument("--supports-fp8-compute", action="store_true")
parser.add_argument(
    "--preview-method",
    choices=["none", "auto", "latent2rgb", "taesd"],
    default="none",
    metavar="[none,auto,latent2rgb,taesd]",
)
parser.add_argument("--preview-size", type=int, default=512)

cache_group = parser.add_mutually_exclusive_group()
cache_group.add_argument(
    "--cache-classic", action="store_true", help="Keep the results of the last prompt (default)."
)
cache_group.add_argument(
    "--cache-lru", type=int, default=0, help="Keep the results of the last N nodes."
)
cache_group.add_argument(
    "--cache-none", action="store_true", help="Run every node of every prompt again."
)

attn_group = parser.add_mutually_exclusive_group()
attn_group.add_argument("--use-split-cross-attention", action="store_true")
attn_group.add_argument("--use-quad-cross-attention", action="store_true")
attn_group.add_argument("--use-pytorch-cross-attention", action="store_true")
attn_group.add_argument("--use-sage-attention", action="store_true")
attn_group.add_argument("--use-flash-attention", action="store_true")
parser.add_argument("--disable-xformers", action="store_true")
upcast = parser.add_mutually_exclusive_group()
upcast.add_argument("--force-upcast-attention", action="store_true")
upcast.add_argument("--dont-upcast-attention", action="store_true")
vram_group = parser.add_mutually_exclusive_group()
vram_group.add_argument("--gpu-only", action="store_true")
vram_group.add_argument("--highvram", action="store_true")
vram_group.add_argument("--normalvram", action="store_true")
vram_group.add_argument("--lowvram", action="store_true")
vram_group.add_argument("--novram", action="store_true")
vram_group.add_argument("--cpu", action="store_true", help="Use the CPU (always so here).")
parser.add_argument("--reserve-vram", type=float, default=None)
parser.add_argument("--async-offload", action="store_true")
parser.add_argument("--force-non-blocking", action="store_true")
parser.add_argument(
    "--default-hashing-function",
    choices=["md5", "sha1", "sha256", "sha512"],
    default="sha256",
    help="How uploads of one name are compared.",
)
parser.add_argument("--disable-smart-memory", action="store_true")
parser.add_argument("--deterministic", action="store_true")
parser.add_argument("--fast", nargs="*", type=PerformanceFeature)
parser.add_argument("--mmap-torch-files", action="store_true")
parser.add_argument("--disable-mmap", action="store_true")

# Behaviour
parser.add_argument("--dont-print-server", action="store_true", help="Do not log the address.")
parser.add_argument("--quick-test-for-ci", action="store_true", help="Start, then exit 0.")
parser.add_argument("--windows-standalone-build", action="store_true")
parser.add_argument("--disable-metadata", action="store_true", help="No prompt in saved images.")
parser.add_argument("--disable-all-custom-nodes", action="store_true")
parser.add_argument(
    "--whitelist-custom-nodes",
    nargs="+",
    default=[],
    help="Folders to load in spite of --disable-all-custom-nodes.",
)
parser.add_argument("--disable-api-nodes", action="store_true")
parser.add_argument("--multi-user", action="store_true")
parser.add_argument(
    "--verbose",
    default="INFO",
    const="DEBUG",
    nargs="?",
    choices=["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    help="The log level.",
)
parser.add_argument(
    "--log-stdout", action="store_true", help="Log to stdout, errors alone to stderr."
)
parser.add_argument(
    "--front-end-version", default="comfyanonymous/ComfyUI@latest", help="Not used here."
)
parser.add_argument(
    "--front-end-root", type=existing_directory, default=None, help="A folder with index.html."
)
parser.add_argument(
    "--user-directory", type=existing_directory, default=None, help="Overrides --base-directory."
)
parser.add_argument("--enable-compress-response-body", action="store_true")
parser.add_argument("--comfy-api-base", default="https://api.comfy.org", help="Not used here.")

# Beside this file and not under --base-directory: that is where 0.3.64 puts it.
database_default_path = os.path.abspath(
    os.path.join(os.path.dirname(__file__), "..", "user", "comfyui.db")
)
parser.add_argument(
    "--database-url",
    default=f"sqlite:///{database_default_path}",
    help="An SQLite URL; sqlite:///:memory: makes no file.",
)

args = parser.parse_args() if comfy.options.args_parsing else parser.parse_args([])

if args.windows_standalone_build:
    args.auto_launch = True
if args.disable_auto_launch:
    args.auto_launch = False
