"""Importing custom nodes: folders and single files, each under a name of its own.

A pack that fails to import is reported and left out; the server starts all the same.
"""

import importlib.util
import inspect
import logging
import os
import sys
import time
import tomllib
import traceback
from collections.abc import Collection
from types import ModuleType

import folder_paths
import nodes
from comfy.cli_args import args

Times = list[tuple[float, str, bool]]


def get_module_name(module_path: str) -> str:
    """`x` for a file x.py and for a folder x."""
    name = os.path.basename(module_path)
    return os.path.splitext(name)[0] if os.path.isfile(module_path) else name


def _import(name: str, path: str, register: bool) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no Python module: {path}")
    module = importlib.util.module_from_spec(spec)
    if register:
        sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _declared_web_dir(module_path: str) -> None:
    """Serve the folder that a pyproject.toml names under [tool.comfy]."""
    toml = os.path.join(module_path, "pyproject.toml")
    if not os.path.isfile(toml):
        return
    try:
        with open(toml, "rb") as stream:
            config = tomllib.load(stream)
        web = config.get("tool", {}).get("comfy", {}).get("web")
        folder = os.path.join(module_path, web) if web else ""
        if web and os.path.isdir(folder):
            name = config.get("project", {}).get("name", "")
            nodes.EXTENSION_WEB_DIRS[name] = folder
            logging.info(f"Automatically register web folder {web} for {name}")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        logging.warning(f"Unable to parse pyproject.toml: {error}")


def load_custom_node(
    module_path: str, ignore: Collection[str] = (), module_parent: str = "custom_nodes"
) -> bool:
    """Import one pack and take over its nodes, except names that built-in nodes have."""
    is_file = os.path.isfile(module_path)
    if is_file:
        name = sys_name = os.path.splitext(module_path)[0]
        entry, module_dir = module_path, os.path.dirname(module_path)
    else:
        name = get_module_name(module_path)
        sys_name = module_path.replace(".", "_x_")
        entry, module_dir = os.path.join(module_path, "__init__.py"), module_path
    try:
        logging.debug(f"Trying to load custom node {module_path}")
        module = _import(sys_name, entry, register=True)
        nodes.LOADED_MODULE_DIRS[name] = os.path.abspath(module_dir)
        if not is_file:
            _declared_web_dir(module_path)
        web = getattr(module, "WEB_DIRECTORY", None)
        if web is not None:
            folder = os.path.abspath(os.path.join(module_dir, web))
            if os.path.isdir(folder):
                nodes.EXTENSION_WEB_DIRS[name] = folder
        mappings = getattr(module, "NODE_CLASS_MAPPINGS", None)
        if mappings is None:
            logging.warning(
                f"Skip {module_path} module for custom nodes due to the lack of "
                "NODE_CLASS_MAPPINGS or NODES_LIST (need one)."
            )
            return False
        for node_name, node_class in mappings.items():
            if node_name not in ignore:
                nodes.NODE_CLASS_MAPPINGS[node_name] = node_class
                module_name = f"{module_parent}.{get_module_name(module_path)}"
                node_class.RELATIVE_PYTHON_MODULE = module_name
        nodes.NODE_DISPLAY_NAME_MAPPINGS.update(
            getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", None) or {}
        )
        return True
    except Exception as error:
        logging.warning(traceback.format_exc())
        logging.warning(f"Cannot import {module_path} module for custom nodes: {error}")
        return False


def _report(title: str, failure: str, times: Times) -> None:
    if not times:
        return
    logging.info(f"\n{title} times for custom nodes:")
    for seconds, path, good in sorted(times):
        logging.info(f"{seconds:6.1f} seconds{'' if good else f' ({failure})'}: {path}")
    logging.info("")


def _is_disabled(name: str) -> bool:
    return bool(args.disable_all_custom_nodes and name not in args.whitelist_custom_nodes)


def any_custom_nodes() -> bool:
    """Whether the command line leaves any custom node enabled."""
    return not args.disable_all_custom_nodes or len(args.whitelist_custom_nodes) > 0


def execute_prestartup_scripts() -> None:
    """Run the prestartup_script.py of every pack, before anything else is imported."""
    if not any_custom_nodes():
        return
    for folder in folder_paths.get_folder_paths("custom_nodes"):
        times: Times = []
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            script = os.path.join(path, "prestartup_script.py")
            if path.endswith(".disabled") or not os.path.exists(script):
                continue
            if _is_disabled(name):
                logging.info(
                    f"Prestartup Skipping {name} due to disable_all_custom_nodes and "
                    "whitelist_custom_nodes"
                )
                continue
            started, good = time.perf_counter(), True
            try:
                _import(os.path.splitext(script)[0], script, register=False)
            except Exception as error:
                logging.error(f"Failed to execute startup-script: {script} / {error}")
                good = False
            times.append((time.perf_counter() - started, path, good))
        _report("Prestartup", "PRESTARTUP FAILED", times)


def init_external_custom_nodes() -> None:
    """Import every pack in every custom_nodes folder, in the order of the listing."""
    builtin = set(nodes.NODE_CLASS_MAPPINGS)
    times: Times = []
    for folder in folder_paths.get_folder_paths("custom_nodes"):
        for name in os.listdir(os.path.realpath(folder)):
            path = os.path.join(folder, name)
            is_other_file = os.path.isfile(path) and not path.endswith(".py")
            if name == "__pycache__" or is_other_file or path.endswith(".disabled"):
                continue
            if _is_disabled(name):
                logging.info(
                    f"Skipping {name} due to disable_all_custom_nodes and whitelist_custom_nodes"
                )
                continue
            started = time.perf_counter()
            good = load_custom_node(path, builtin)
            times.append((time.perf_counter() - started, path, good))
    _report("Import", "IMPORT FAILED", times)


def init_extra_nodes() -> None:
    """Load what comes with the core, then what was added to it."""
    here = os.path.dirname(os.path.realpath(inspect.getfile(nodes)))
    load_custom_node(
        os.path.join(here, "comfy_extras", "nodes_preview_any.py"), module_parent="comfy_extras"
    )
    if any_custom_nodes():
        init_external_custom_nodes()
    else:
        logging.info("Skipping loading of custom nodes")
