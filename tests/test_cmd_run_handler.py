"""`cvs run-handler`: a workflow's result, in every form, and everything that can go wrong."""

import base64
import json
import os
import signal
from typing import Any

import pytest
from world import DEMO, PATIENCE, TROUBLE, Done, World, start_line, until

pytest_plugins = ["world_fixtures"]

WORKFLOW = json.loads((DEMO / "workflow.json").read_text())
PNG = b"\x89PNG\r\n\x1a\n"

#: What is said while the demo's workflow runs.
TOLD = (
    f"{start_line()}\n"
    "the workflow runs\nnode 1 (EmptyImage)\nnode 2 (ImageInvert)\n"
    "node 3 (DemoCaption)\nnode 4 (SaveImage)\n"
)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def graph(**changes: dict[str, Any]) -> dict[str, Any]:
    """The demo's workflow with other nodes under some of its numbers: `_3=node(…)`."""
    return WORKFLOW | {name.removeprefix("_"): value for name, value in changes.items()}


def handle(world: World, workflow: Any, *options: str, **environment: str) -> Done:
    path = world.workflow(workflow)
    return world.cvs("run-handler", "demo", "--workflow", path, *options, **environment)


def assert_ended(world: World) -> None:
    """No lease and no file of the run is left, nor anything beside state."""
    assert world.leases() == []
    assert os.listdir(world.local_root / "run") == []
    assert os.listdir(world.cache / "tmp") == []


# Where the result goes


def test_base64(realized: World) -> None:
    """The first file comes as base64 on standard output and nothing else does."""
    done = handle(realized, WORKFLOW)

    output = (realized.state() / "output" / "demo_00001_.png").read_bytes()
    assert done.out == base64.b64encode(output).decode() + "\n"
    assert output.startswith(PNG)
    assert done.err == f"{TOLD}demo_00001_.png: 1.0 kB\n"
    assert done.code == 0
    assert_ended(realized)


def test_out_file(realized: World) -> None:
    """--out-file receives the base64 text, in folders that are made; standard output is empty."""
    file = realized.folder / "artifacts" / "output.b64"
    done = handle(realized, WORKFLOW, "--output", "base64", "--out-file", str(file))

    output = (realized.state() / "output" / "demo_00001_.png").read_bytes()
    assert base64.b64decode(file.read_bytes(), validate=True) == output
    assert (done.code, done.out) == (0, "")
    assert done.err == f"{TOLD}demo_00001_.png: 1.0 kB → {file}\n"
    assert os.listdir(file.parent) == ["output.b64"]


def test_out_dir(realized: World) -> None:
    """--out-dir receives every output as it is; a second run replaces nothing."""
    images = ["2", 0]
    both = graph(_5=node("SaveImage", images=images, filename_prefix="sub/plain"))
    folder = realized.folder / "results"
    for _ in range(2):
        done = handle(realized, both, "--out-dir", str(folder))
        assert (done.code, done.out) == (0, "")

    names = ["demo_00001_.png", "demo_00002_.png", "plain_00001_.png", "plain_00002_.png"]
    assert names == sorted(os.listdir(folder))
    state = realized.state() / "output"
    assert (state / "sub" / names[2]).read_bytes() == (folder / names[2]).read_bytes()
    assert (state / names[0]).read_bytes() == (folder / names[0]).read_bytes()


def test_out_dir_keeps_what_is_there(realized: World) -> None:
    """A name that is taken in --out-dir gets a number."""
    folder = realized.folder / "results"
    folder.mkdir()
    (folder / "demo_00001_.png").write_bytes(b"mine")
    handle(realized, WORKFLOW, "--out-dir", str(folder))

    assert sorted(os.listdir(folder)) == ["demo_00001_-2.png", "demo_00001_.png"]
    assert (folder / "demo_00001_.png").read_bytes() == b"mine"


def test_json(realized: World) -> None:
    """--json has the members of the contract, and the files with --out-dir."""
    folder = realized.folder / "results"
    found = handle(realized, WORKFLOW, "--json", "--out-dir", str(folder)).json

    output = (folder / "demo_00001_.png").read_bytes()
    file = {"node": "4", "file": f"{folder}/demo_00001_.png", "type": "output", "size": len(output)}
    expected = {
        "version_id": "demo",
        "output_mode": "base64",
        "base64": base64.b64encode(output).decode(),
        "size": len(output),
        "extension": ".png",
        "files": [file],
    }
    assert expected == found


def test_json_of_the_contract(realized: World) -> None:
    """Without --out-dir there are these members and no others."""
    found = handle(realized, WORKFLOW, "--json").json

    assert list(found) == ["version_id", "output_mode", "base64", "size", "extension"]


def test_quiet(realized: World) -> None:
    """--quiet with a file says nothing at all."""
    done = handle(realized, WORKFLOW, "--quiet", "--out-file", str(realized.folder / "o"))

    assert done == (0, "", "")


def test_preview_is_no_result_beside_an_output(realized: World) -> None:
    """A preview comes first and is not taken while there is an output; alone it is."""
    preview = node("PreviewImage", images=["2", 0])
    done = handle(realized, {"0": preview, **WORKFLOW}, "--json")
    assert (
        base64.b64decode(done.json["base64"])
        == (realized.state() / "output" / "demo_00001_.png").read_bytes()
    )
    alone = {"1": WORKFLOW["1"], "2": WORKFLOW["2"], "3": preview}

    assert base64.b64decode(handle(realized, alone, "--json").json["base64"]).startswith(PNG)


def test_state_is_kept(realized: World) -> None:
    """ComfyUI's own output stays in state/, numbered on by every run."""
    for _ in range(2):
        handle(realized, WORKFLOW)

    kept = [name for name in os.listdir(realized.state() / "output") if name.endswith(".png")]
    assert sorted(kept) == ["demo_00001_.png", "demo_00002_.png"]


def test_wrapped_workflow(realized: World) -> None:
    """A graph under `prompt`, as for the API, is taken too."""
    assert handle(realized, {"prompt": WORKFLOW}).code == 0


def test_verbose(realized: World) -> None:
    """--verbose shows ComfyUI's log."""
    assert "To see the GUI go to" in handle(realized, WORKFLOW, "--verbose").err
    assert "To see the GUI go to" not in handle(realized, WORKFLOW).err


def test_extra_args(realized: World) -> None:
    """What follows `--extra-args --` goes to main.py."""
    beside = realized.folder / "beside"
    beside.mkdir()
    done = handle(realized, WORKFLOW, "--extra-args", "--", "--output-directory", str(beside))

    assert done.code == 0
    assert os.listdir(beside) == ["demo_00001_.png"]


def test_output_mode_variable(realized: World) -> None:
    """OUTPUT_MODE decides where --output is not given."""
    done = handle(realized, WORKFLOW, OUTPUT_MODE="carrier-pigeon")
    assert done[:2] == (2, "")
    assert done.err.startswith("error: OUTPUT_MODE 'carrier-pigeon' is not known\n")

    assert handle(realized, WORKFLOW, "--output", "base64", OUTPUT_MODE="gcs").code == 0


# Workflows that cannot be used


@pytest.mark.parametrize(
    ("workflow", "message"),
    [
        ("{", "{path} is not JSON: expecting property name enclosed in double quotes"),
        ('{"1": {}, "1": {}}', "{path}: the key '1' is there twice"),
        ([], "{path} is not a workflow: an object of nodes is needed"),
        ({}, "{path} is not a workflow: an object of nodes is needed"),
        ({"nodes": [], "links": []}, "{path} is a workflow as ComfyUI's page saves it"),
        ({"1": {"inputs": {}}}, "{path}: node '1' has no class_type"),
        ({"1": 7}, "{path}: node '1' has no class_type"),
        ({"1": {"class_type": "A", "inputs": []}}, "{path}: node '1': inputs is not an object"),
    ],
)
def test_no_workflow(realized: World, workflow: Any, message: str) -> None:
    """What is no workflow is told before anything starts, with its file."""
    path = realized.workflow(workflow)
    before = realized.listing()
    done = handle(realized, workflow)

    assert done[:2] == (2, "")
    assert done.err.startswith("error: " + message.format(path=path))
    after = realized.listing()
    assert before | {"workflow.json": after["workflow.json"]} == after


def test_missing_workflow(realized: World) -> None:
    """So is a file that is not there."""
    done = realized.cvs("run-handler", "demo", "--workflow", "gone.json")

    assert done == (2, "", "error: gone.json does not exist\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"_3": node("NoSuchNode", image=["2", 0])},
            "ComfyUI refuses the workflow: Cannot execute because node NoSuchNode does not exist.",
        ),
        (
            {"_3": node("DemoCaption", image=["9", 0], text="x")},
            "ComfyUI refuses the workflow: ",
        ),
        (
            {
                "_5": node("CheckpointLoaderSimple", ckpt_name="gone.safetensors"),
                "_6": node("CLIPTextEncode", text="x", clip=["5", 1]),
                "_4": node("PreviewAny", source=["6", 0]),
            },
            "ComfyUI refuses the workflow: node 5 (CheckpointLoaderSimple): Value not in list "
            "(ckpt_name: 'gone.safetensors' not in ['demo.safetensors'])",
        ),
        (
            {"_1": node("EmptyImage", width="wide", height=1, batch_size=1, color=0)},
            "ComfyUI refuses the workflow: node 1 (EmptyImage): Failed to convert an input value "
            "to a INT value (width, wide, ",
        ),
        (
            {"_3": node("DemoCaption", image=["2", 0])},
            "ComfyUI refuses the workflow: node 3 (DemoCaption): Required input is missing (text)",
        ),
    ],
    ids=["unknown node", "dangling link", "missing model", "bad value", "missing input"],
)
def test_refused_workflow(realized: World, changes: dict[str, Any], message: str) -> None:
    """What ComfyUI does not take is one sentence with node and field; the lease is dropped."""
    done = handle(realized, graph(**changes))

    assert done[:2] == (2, "")
    assert done.err.splitlines()[1].startswith(f"error: {message}")
    assert "Traceback" not in done.err
    assert_ended(realized)


def test_title_is_named(realized: World) -> None:
    """A node that people gave a title is called by it."""
    titled = {**node("DemoCaption", image=["2", 0]), "_meta": {"title": "Sign"}}
    done = handle(realized, graph(_3=titled))

    assert "node 3 (Sign, DemoCaption): Required input is missing (text)" in done.err


def test_one_of_two_outputs_is_refused(realized: World) -> None:
    """Of two outputs the valid one is run, and the other is named with the reason."""
    done = handle(realized, graph(_5=node("SaveImage", filename_prefix="x")))

    assert base64.b64decode(done.out).startswith(PNG)
    reason = "warning: node 5 (SaveImage) is not run: Required input is missing (images)\n"
    assert reason in done.err
    assert done.code == 0


# Workflows that fail


@pytest.fixture
def trouble(realized: World) -> World:
    """A world with nodes that fail."""
    realized.add_pack("trouble", TROUBLE)
    return realized


def test_node_that_raises(trouble: World) -> None:
    """An error of a node names it with type and message, exit 1."""
    done = handle(trouble, {"7": node("Raises")})

    assert done[:2] == (1, "")
    message = f"{start_line()}\nthe workflow runs\nnode 7 (Raises)\n"
    assert done.err == f"{message}error: node 7 (Raises) failed: ValueError: the paint is gone\n"
    assert_ended(trouble)


def test_node_that_raises_json(trouble: World) -> None:
    """With --json there is a document of the error too."""
    done = handle(trouble, {"7": node("Raises")}, "--json")

    expected = {
        "error": "node 7 (Raises) failed: ValueError: the paint is gone",
        "hint": None,
        "exit_code": 1,
    }
    assert (1, expected) == (done.code, done.json)


def test_no_output(trouble: World) -> None:
    """A workflow that makes no file is an error."""
    done = handle(trouble, {"1": node("MakesNothing")})

    assert done[:2] == (1, "")
    assert done.err.endswith("error: the workflow made no file\nhint: does it save anything?\n")


def test_timeout(trouble: World) -> None:
    """--timeout interrupts the workflow and is one sentence."""
    here = trouble.folder / "sources" / "here"
    done = handle(trouble, {"1": node("Waits", file=str(here))}, "--timeout", "1")

    assert done[:2] == (1, "")
    assert done.err.endswith("error: the workflow did not end within 1 s\n")
    assert here.exists()
    assert_ended(trouble)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "x", "inf"])
def test_bad_timeout(realized: World, value: str) -> None:
    """A timeout that is none is refused."""
    done = handle(realized, WORKFLOW, f"--timeout={value}")

    assert done[:2] == (2, "")
    message = f"error: argument --timeout: {value!r} is not a number of seconds\n"
    assert done.err.startswith(message)


def test_comfyui_dies(trouble: World) -> None:
    """A ComfyUI that dies in the middle is told at once, with the end of its log."""
    done = handle(trouble, {"1": node("Dies")})

    assert done[:2] == (1, "")
    error = done.err.partition("error: ")[2]
    assert error.startswith("ComfyUI ended with code 7; its log ends:\n")
    assert error.rstrip().endswith("the roof falls in")
    assert_ended(trouble)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(trouble: World, number: signal.Signals, code: int) -> None:
    """Ctrl-C in the middle ends ComfyUI, drops the lease, and leaves no half of a result."""
    here, file = trouble.folder / "sources" / "here", trouble.folder / "out.b64"
    path = trouble.workflow({"1": node("Waits", file=str(here))})
    options = ["run-handler", "demo", "--workflow", path, "--out-file", str(file)]
    with trouble.start(*options) as process:
        until(lambda: here.exists() or process.poll() is not None)
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)

    assert process.returncode == code
    assert "Traceback" not in err
    assert not file.exists()
    assert_ended(trouble)


def test_out_dir_that_cannot_be(realized: World) -> None:
    """A place for the result that cannot be is a sentence."""
    done = handle(realized, WORKFLOW, "--out-dir", str(realized.model / "x"))

    assert done[:2] == (2, "")
    assert done.err.splitlines()[-1].startswith("error: something is in the way: ")


def test_failed_import_is_named(realized: World) -> None:
    """A node that cannot be imported is named, and the rest runs."""
    realized.add_pack("broken", "import no_such_module\n")
    done = handle(realized, WORKFLOW)

    assert done.code == 0
    warning = "warning: nodes that could not be imported: broken"
    assert done.err.startswith(f"{start_line()}\n{warning}\n")


def test_model_of_the_lock_is_read(realized: World) -> None:
    """A workflow reads the locked model through the view."""
    from demo_core import sampled

    done = handle(realized, sampled("demo.safetensors"))

    assert base64.b64decode(done.out).startswith(PNG)


def test_offline_and_environment(realized: World) -> None:
    """--offline sets COMFY_OFFLINE for the run, whatever the environment says."""
    text = "import os\nopen('user/offline', 'w').write(os.environ.get('COMFY_OFFLINE', '-'))\n"
    realized.add_pack("told", text + "NODE_CLASS_MAPPINGS = {}\n")
    handle(realized, WORKFLOW, "--offline", COMFY_OFFLINE="false")

    assert (realized.state() / "user" / "offline").read_text() == "1"


def test_two_at_once(realized: World) -> None:
    """Two runs of one version at once both give their result."""
    path = realized.workflow(WORKFLOW)
    options = ["run-handler", "demo", "--workflow", path]
    with realized.start(*options) as one, realized.start(*options) as two:
        outputs = [process.communicate(timeout=PATIENCE)[0] for process in (one, two)]

    assert [base64.b64decode(text).startswith(PNG) for text in outputs] == [True, True]
    assert_ended(realized)
