"""What is asked of a ComfyUI server: the scripts that are recorded and replayed.

A step is plain data, for it is stored beside its answer:

    {"request": {"method", "path", "json" | "body" | "multipart"}}   one HTTP exchange
        "bind":    {NAME: [KEY, ...]}  call the value found there in the answer `<NAME>`
        "picture": true                describe the PNG that comes rather than keep its bytes
        "keep":    [KEY, ...]          of a large object keep these members, and a list of all keys
        "until":   [KEY, ...]          ask again until this is in the answer, no longer than `LIMIT`
    {"open": NAME, "client_id": ID, "send": [...]}                   open a websocket
    {"read": NAME}                                                   what came, up to an idle queue
        "any_order": true              nodes may run in another order: neither waits for the other
    {"wait": NAME, "type": TYPE}                                     let a message of that type come
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Step = dict[str, Any]
Graph = dict[str, dict[str, Any]]

CLIENT = "cvs-rig"
SHOWN = ("EmptyImage", "ImageInvert", "SaveImage", "PreviewImage", "LoadImage")
KEPT = (
    *("CheckpointLoaderSimple", "CLIPTextEncode", "EmptyLatentImage", "KSampler", "VAEDecode"),
    *("ImageScale", "PreviewAny", "SaveImageWebsocket", "CvsRigSlow"),
)
BROKEN_NODE = "cvs_rig_broken"
SLOW_NODE = "CvsRigSlow"

UPLOADED = {"png": {"width": 4, "height": 4, "color": "#00ff80"}}

FILES: dict[str, dict[str, Any]] = {
    "input/cvs.png": {"png": {"width": 4, "height": 2, "color": "#102030"}},
    "input/not-a-picture.png": {"text": "not a picture\n"},
    "models/checkpoints/cvs-rig.safetensors": {"text": "not a checkpoint\n"},
    "models/checkpoints/cvs-dangling.safetensors": {"link": "../../cvs-nowhere/gone.safetensors"},
    f"custom_nodes/{BROKEN_NODE}/__init__.py": {
        "text": 'import cvs_rig_no_such_module\n\nNODE_CLASS_MAPPINGS = {"CvsRigBroken": object}\n'
    },
    "custom_nodes/cvs_rig_slow.py": {
        "text": '''\
"""A node that takes its time and shows progress, to be interrupted."""

import time

import comfy.model_management
import comfy.utils


class CvsRigSlow:
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "image": ("IMAGE",),
                "seconds": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 60.0, "step": 0.1}),
            }
        }

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "cvs"

    def execute(self, image, seconds):
        steps = max(1, round(seconds * 10))
        progress = comfy.utils.ProgressBar(steps)
        for _ in range(steps):
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.1)
            progress.update(1)
        return (image,)


NODE_CLASS_MAPPINGS = {"CvsRigSlow": CvsRigSlow}
NODE_DISPLAY_NAME_MAPPINGS = {"CvsRigSlow": "Slow"}
'''
    },
}
"""What must lie in ComfyUI's folder, beside its own files, before it is started."""


@dataclass(frozen=True)
class Scenario:
    """A named script, and why it was recorded."""

    name: str
    why: str
    steps: tuple[Step, ...]


def get(path: str, **options: Any) -> Step:
    return {"request": {"method": "GET", "path": path}, **options}


def post(path: str, json: Any, **options: Any) -> Step:
    return {"request": {"method": "POST", "path": path, "json": json}, **options}


def post_raw(path: str, body: str) -> Step:
    return {"request": {"method": "POST", "path": path, "body": body}}


def upload(name: str, content: dict[str, Any], **fields: str) -> Step:
    file = {"name": name, "content": content}
    multipart = {"file": file, "fields": fields}
    return {"request": {"method": "POST", "path": "/upload/image", "multipart": multipart}}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def inverted(prefix: str, color: int) -> Graph:
    """A picture of one colour, inverted and saved. No other scenario may use the same colour: a
    node whose inputs were seen before is not run again."""
    return {
        "1": node("EmptyImage", width=64, height=64, batch_size=1, color=color),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("SaveImage", images=["2", 0], filename_prefix=prefix),
    }


def checkpoint(name: str) -> Graph:
    """The graph that everybody knows: text to image with a checkpoint."""
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name=name),
        "2": node("CLIPTextEncode", text="a lighthouse", clip=["1", 1]),
        "3": node("CLIPTextEncode", text="rain", clip=["1", 1]),
        "4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "5": node(
            "KSampler",
            model=["1", 0],
            seed=7,
            steps=2,
            cfg=7.0,
            sampler_name="euler",
            scheduler="normal",
            positive=["2", 0],
            negative=["3", 0],
            latent_image=["4", 0],
            denoise=1.0,
        ),
        "6": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="cvs/painted"),
    }


def prompt(graph: Any, bind: str = "prompt_id", **members: Any) -> Step:
    """POST /prompt of a graph that is taken; the answer's id is `<prompt_id>` from then on."""
    return post(
        "/prompt", {"prompt": graph, "client_id": CLIENT, **members}, bind={bind: ["prompt_id"]}
    )


def refused(graph: Any) -> Step:
    """POST /prompt of a graph that is not."""
    return post("/prompt", {"prompt": graph, "client_id": CLIENT})


def run(graph: Any, **reading: Any) -> tuple[Step, ...]:
    """Post a graph, listen to the end, and ask for the history."""
    return (
        {"open": "listener", "client_id": CLIENT, "send": []},
        prompt(graph),
        {"read": "listener", **reading},
        get("/history/<prompt_id>"),
    )


def view(filename: str, subfolder: str = "", kind: str = "output", **options: Any) -> Step:
    return get(f"/view?filename={filename}&subfolder={subfolder}&type={kind}", **options)


SCENARIOS = (
    Scenario("system-stats", "is it up, and what is it", (get("/system_stats"),)),
    Scenario("features", "what the server says it can do", (get("/features"),)),
    Scenario(
        "object-info",
        "which nodes are there, and how their inputs are described; cvs checks node classes here",
        (
            *(get(f"/object_info/{name}") for name in SHOWN),
            get("/object_info/NoSuchNode"),
            get("/object_info", keep=[*SHOWN, *KEPT]),
        ),
    ),
    Scenario(
        "models",
        "which kinds and files are offered; a dangling link is offered too",
        (
            get("/models"),
            get("/models/checkpoints"),
            get("/models/loras"),
            get("/models/no-such-kind"),
            get("/embeddings"),
        ),
    ),
    Scenario(
        "prompt",
        "a good graph: the answer, every websocket message, the history and the picture",
        (*run(inverted("cvs/t", 0x204060)), view("t_00001_.png", "cvs", picture=True)),
    ),
    Scenario(
        "prompt-cached",
        "the same graph twice: nothing runs, and the old file is named again",
        (
            *run(inverted("cvs/cached", 0x204061)),
            {"open": "again", "client_id": CLIENT, "send": []},
            prompt(inverted("cvs/cached", 0x204061), bind="second_id"),
            {"read": "again"},
            get("/history/<second_id>"),
        ),
    ),
    Scenario(
        "prompt-preview",
        "PreviewImage: a result of type `temp`, whose name is random",
        run(
            {
                "1": node("EmptyImage", width=8, height=8, batch_size=1, color=0x204062),
                "2": node("PreviewImage", images=["1", 0]),
            }
        ),
    ),
    Scenario(
        "prompt-without-listener",
        "a prompt without `client_id`, as a handler that only polls would post it",
        (
            post(
                "/prompt",
                {"prompt": inverted("cvs/silent", 0x204063)},
                bind={"prompt_id": ["prompt_id"]},
            ),
            get("/history/<prompt_id>", until=["<prompt_id>"]),
        ),
    ),
    Scenario(
        "prompt-extra-data",
        "a prompt with an id of its own and extra data; the graph is embedded in the picture",
        (
            {"open": "listener", "client_id": CLIENT, "send": []},
            prompt(
                inverted("cvs/extra", 0x204064),
                prompt_id="cvs-rig-own-id",
                extra_data={"extra_pnginfo": {"workflow": {"made_by": "cvs"}}},
            ),
            {"read": "listener"},
            get("/history/<prompt_id>"),
            view("extra_00001_.png", "cvs", picture=True),
        ),
    ),
    Scenario(
        "prompt-batch",
        "two pictures of one node, and two outputs of one graph",
        run(
            {
                "1": node("EmptyImage", width=8, height=8, batch_size=2, color=0x204065),
                "2": node("SaveImage", images=["1", 0], filename_prefix="cvs/batch-a"),
                "3": node("ImageInvert", image=["1", 0]),
                "4": node("SaveImage", images=["3", 0], filename_prefix="cvs/batch-b"),
            },
            any_order=True,
        ),
    ),
    Scenario(
        "prompt-text",
        "an output that is no file",
        run({"1": node("PreviewAny", source="some text")}),
    ),
    Scenario(
        "prompt-websocket-image",
        "a picture that comes over the websocket only, to a client of either kind",
        (
            *run(
                {
                    "1": node("EmptyImage", width=4, height=4, batch_size=1, color=0x20406B),
                    "2": node("SaveImageWebsocket", images=["1", 0]),
                }
            ),
            {
                "open": "flags",
                "client_id": CLIENT,
                "send": [{"type": "feature_flags", "data": {"supports_preview_metadata": True}}],
            },
            prompt(
                {
                    "1": node("EmptyImage", width=4, height=4, batch_size=1, color=0x20406C),
                    "2": node("SaveImageWebsocket", images=["1", 0]),
                },
                bind="second_id",
            ),
            {"read": "flags"},
        ),
    ),
    Scenario(
        "load-image",
        "an uploaded picture goes through LoadImage",
        (
            # Into folders of their own, for `object-info` lists what lies in `input` itself.
            upload("a.png", UPLOADED, subfolder="cvs"),
            upload("a.png", UPLOADED, subfolder="cvs"),
            upload("a.png", {"png": {**UPLOADED["png"], "color": "#ff0080"}}, subfolder="cvs"),
            upload(
                "a.png",
                {"png": {**UPLOADED["png"], "color": "#0080ff"}},
                subfolder="cvs",
                overwrite="true",
            ),
            upload("a.png", UPLOADED, subfolder="cvs/deeper", type="input"),
            upload("a.png", UPLOADED, subfolder="cvs", type="temp"),
            upload("a.png", UPLOADED, subfolder="../.."),
            *run(
                {
                    "1": node("LoadImage", image="cvs/a.png"),
                    "2": node("SaveImage", images=["1", 0], filename_prefix="cvs/loaded"),
                }
            ),
            view("loaded_00001_.png", "cvs", picture=True),
            view("a.png", "cvs", "input", picture=True),
        ),
    ),
    Scenario(
        "load-image-missing",
        "LoadImage of a file that is not there",
        (
            refused(
                {
                    "1": node("LoadImage", image="no-such.png"),
                    "2": node("SaveImage", images=["1", 0], filename_prefix="cvs/none"),
                }
            ),
        ),
    ),
    Scenario("invalid-unknown-node", "no such node class", (refused({"1": node("NoSuchNode")}),)),
    Scenario(
        "invalid-missing-model",
        "a model that is not offered",
        (refused(checkpoint("nope.safetensors")),),
    ),
    Scenario(
        "invalid-dangling-link",
        "an input that names a node which the graph lacks",
        (refused({"3": node("SaveImage", images=["9", 0], filename_prefix="cvs/x")}),),
    ),
    Scenario(
        "invalid-empty",
        "no prompt, an empty one, one without class_type, one without an output node",
        (
            refused({}),
            post("/prompt", {"client_id": CLIENT}),
            refused({"1": {"inputs": {}}}),
            refused({"1": node("EmptyImage", width=8, height=8, batch_size=1, color=0)}),
        ),
    ),
    Scenario(
        "invalid-json",
        "bodies that are no prompt document at all",
        (post_raw("/prompt", "{"), post_raw("/prompt", "")),
    ),
    Scenario(
        "invalid-inputs",
        "inputs of a wrong type, out of range, missing, and linked to a wrong output",
        (
            refused(
                {
                    "1": node("EmptyImage", width="wide", height=8, batch_size=1, color=0),
                    "2": node("SaveImage", images=["1", 0], filename_prefix="cvs/x"),
                }
            ),
            refused(
                {
                    "1": node("EmptyImage", width=0, height=99999, batch_size=1, color=0),
                    "2": node("SaveImage", images=["1", 0], filename_prefix="cvs/x"),
                }
            ),
            refused({"2": node("SaveImage", filename_prefix="cvs/x")}),
            refused(
                {
                    "1": node("CheckpointLoaderSimple", ckpt_name="cvs-rig.safetensors"),
                    "2": node("SaveImage", images=["1", 0], filename_prefix="cvs/x"),
                }
            ),
        ),
    ),
    Scenario(
        "invalid-one-of-two",
        "one output is good, the other is not: the good one runs, the error is told beside it",
        run(
            {
                **inverted("cvs/half", 0x204066),
                "4": node("SaveImage", images=["9", 0], filename_prefix="cvs/other"),
            }
        ),
    ),
    Scenario(
        "error-image",
        "a node that fails at run time: LoadImage of a file that is no picture",
        run(
            {
                "1": node("LoadImage", image="not-a-picture.png"),
                "2": node("SaveImage", images=["1", 0], filename_prefix="cvs/none"),
            }
        ),
    ),
    Scenario(
        "error-unlinked-image",
        "text where a link should be passes validation and fails at run time",
        run({"1": node("SaveImage", images="text", filename_prefix="cvs/none")}),
    ),
    Scenario(
        "error-broken-checkpoint",
        "a model file that is none fails at run time only",
        run(checkpoint("cvs-rig.safetensors")),
    ),
    Scenario(
        "error-dangling-checkpoint",
        "a dangling model link passes validation and fails at run time",
        run(checkpoint("cvs-dangling.safetensors")),
    ),
    Scenario(
        "queue",
        "GET and POST /queue while one prompt runs and one waits, and when all is idle",
        (
            get("/queue"),
            get("/prompt"),
            {"open": "listener", "client_id": CLIENT, "send": []},
            prompt(
                {
                    "1": node("EmptyImage", width=8, height=8, batch_size=1, color=0x204067),
                    "2": node(SLOW_NODE, image=["1", 0], seconds=1.0),
                    "3": node("PreviewImage", images=["2", 0]),
                }
            ),
            {"wait": "listener", "type": "progress"},
            prompt(inverted("cvs/waits", 0x204068), bind="second_id"),
            get("/queue"),
            get("/prompt"),
            get("/history/<prompt_id>"),
            post("/queue", {"delete": ["<second_id>"]}),
            get("/prompt"),
            {"read": "listener"},
            get("/queue"),
            get("/history/<second_id>"),
            post("/queue", {"clear": True}),
        ),
    ),
    Scenario(
        "interrupt",
        "POST /interrupt of another prompt, and of the running one",
        (
            {"open": "listener", "client_id": CLIENT, "send": []},
            prompt(
                {
                    "1": node("EmptyImage", width=8, height=8, batch_size=1, color=0x204069),
                    "2": node(SLOW_NODE, image=["1", 0], seconds=30.0),
                    "3": node("PreviewImage", images=["2", 0]),
                }
            ),
            {"wait": "listener", "type": "progress"},
            post("/interrupt", {"prompt_id": "no-such-prompt"}),
            post("/interrupt", {"prompt_id": "<prompt_id>"}),
            {"read": "listener"},
            get("/history/<prompt_id>"),
        ),
    ),
    Scenario("interrupt-idle", "POST /interrupt when nothing runs", (post_raw("/interrupt", ""),)),
    Scenario(
        "history",
        "unknown ids, and deletion",
        (
            get("/history/no-such-prompt"),
            *run(inverted("cvs/history", 0x20406A)),
            post("/history", {"delete": ["<prompt_id>"]}),
            get("/history/<prompt_id>"),
        ),
    ),
    Scenario(
        "view-errors",
        "what GET /view refuses",
        (
            view("no-such.png"),
            get("/view"),
            view("../main.py"),
            view("main.py", ".."),
            view("t.png", "", "no-such-type"),
        ),
    ),
    Scenario(
        "not-found", "addresses that are not there", (get("/no/such/address"), get("/userdata/x"))
    ),
    Scenario(
        "free",
        "POST /free, as a worker does between jobs",
        (post("/free", {"unload_models": True, "free_memory": True}),),
    ),
    Scenario(
        "websocket",
        "the first messages: with a client id, without one, and with feature flags",
        (
            {"open": "named", "client_id": CLIENT, "send": []},
            {"read": "named"},
            {"open": "nameless", "client_id": "", "send": []},
            {"read": "nameless"},
            {
                "open": "flags",
                "client_id": "cvs-rig-flags",
                "send": [{"type": "feature_flags", "data": {"supports_preview_metadata": True}}],
            },
            {"read": "flags"},
        ),
    ),
    Scenario(
        "api-prefix",
        "every address is there under /api too",
        (get("/api/prompt"), get("/api/queue")),
    ),
)
