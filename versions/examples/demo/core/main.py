"""Start the core: read the command line, find custom nodes, serve until SIGINT."""

# ruff: noqa: E402
import comfy.options

comfy.options.enable_args_parsing()

import logging
import os
import sys

import folder_paths
from app import node_loader
from app.logger import setup_logger
from comfy.cli_args import args
from utils.extra_config import load_extra_path_config

setup_logger(log_level=args.verbose, use_stdout=args.log_stdout)


def apply_custom_paths() -> None:
    """Take over the folders that files and options name."""
    beside = os.path.join(os.path.dirname(os.path.realpath(__file__)), "extra_model_paths.yaml")
    if os.path.isfile(beside):
        load_extra_path_config(beside)
    for group in args.extra_model_paths_config or []:
        for path in group:
            load_extra_path_config(path)
    if args.output_directory:
        folder = os.path.abspath(args.output_directory)
        logging.info(f"Setting output directory to: {folder}")
        folder_paths.set_output_directory(folder)
    # What a node saves as a model can be loaded again.
    for kind in ("checkpoints", "clip", "vae", "diffusion_models", "loras"):
        folder = os.path.join(folder_paths.get_output_directory(), kind)
        folder_paths.add_model_folder_path(kind, folder)
    if args.input_directory:
        folder = os.path.abspath(args.input_directory)
        logging.info(f"Setting input directory to: {folder}")
        folder_paths.set_input_directory(folder)
    if args.user_directory:
        folder = os.path.abspath(args.user_directory)
        logging.info(f"Setting user directory to: {folder}")
        folder_paths.set_user_directory(folder)


apply_custom_paths()
node_loader.execute_prestartup_scripts()

import asyncio
import shutil
import signal
import threading
import time
from typing import Any

import comfy.model_management
import comfy.utils
import execution
import server
from app.database import setup_database
from comfy_execution.progress import current_node, get_progress_state
from comfyui_version import __version__


def prompt_worker(prompt_server: server.PromptServer) -> None:
    """Run the prompts of the queue, one after another, for as long as the process lives."""
    new_cache = execution.make_cache(args.cache_lru, args.cache_none)
    executor = execution.PromptExecutor(prompt_server, new_cache)
    queue = prompt_server.prompt_queue
    while True:
        entry = queue.get(timeout=1000.0)
        if entry is not None:
            (_, prompt_id, prompt, extra_data, outputs), number = entry
            started = time.perf_counter()
            prompt_server.last_prompt_id = prompt_id
            executor.execute(prompt, prompt_id, extra_data, outputs)
            status = execution.PromptQueue.ExecutionStatus(
                status_str="success" if executor.success else "error",
                completed=executor.success,
                messages=executor.status_messages,
            )
            queue.task_done(number, executor.history_result, status)
            if prompt_server.client_id is not None:
                done = {"node": None, "prompt_id": prompt_id}
                prompt_server.send_sync("executing", done, prompt_server.client_id)
            seconds = time.perf_counter() - started
            if seconds > 600:
                duration = time.strftime("%H:%M:%S", time.gmtime(seconds))
                logging.info(f"Prompt executed in {duration}")
            else:
                logging.info(f"Prompt executed in {seconds:.2f} seconds")
        if queue.get_flags().get("free_memory"):
            executor.reset()


def hook_progress(prompt_server: server.PromptServer) -> None:
    """Send what progress bars report, and stop a node there that was told to."""

    def report(value: int, total: int, preview: Any, node_id: str | None = None) -> None:
        node_id = node_id or current_node.get() or prompt_server.last_node_id
        comfy.model_management.throw_exception_if_processing_interrupted()
        if node_id is not None:
            get_progress_state().update(node_id, value, total)
        prompt_server.progress(value, total, preview, node_id)

    comfy.utils.set_progress_bar_global_hook(report)


def cleanup_temp() -> None:
    """Remove the temp folder, whoever else may be using it: so does the real one."""
    shutil.rmtree(folder_paths.get_temp_directory(), ignore_errors=True)


def open_browser(scheme: str, address: str, port: int) -> None:
    """Show the page."""
    import webbrowser

    webbrowser.open(f"{scheme}://{f'[{address}]' if ':' in address else address}:{port}")


async def serve(prompt_server: server.PromptServer) -> None:
    """Listen and send messages, until SIGINT.

    A handler of the loop, since an exception could strike in the middle of any request; not
    where the process was started with SIGINT ignored, which a shell does to a background job.
    """
    task = asyncio.current_task()
    if task is not None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    addresses = [(address, args.port) for address in args.listen.split(",")]
    await prompt_server.start_multi_address(
        addresses, open_browser if args.auto_launch else None, not args.dont_print_server
    )
    await prompt_server.publish_loop()


def stop(loop: asyncio.AbstractEventLoop) -> None:
    """Let go of the connections that are open."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


def main() -> None:
    """Serve until SIGINT."""
    logging.info(f"Python version: {sys.version}")
    logging.info(f"ComfyUI version: {__version__}")
    if args.temp_directory:
        folder = os.path.join(os.path.abspath(args.temp_directory), "temp")
        logging.info(f"Setting temp directory to: {folder}")
        folder_paths.set_temp_directory(folder)
    cleanup_temp()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    prompt_server = server.PromptServer(loop)
    node_loader.init_extra_nodes()
    setup_database(args.database_url)
    prompt_server.add_routes()
    hook_progress(prompt_server)
    threading.Thread(target=prompt_worker, args=(prompt_server,), daemon=True).start()
    if args.quick_test_for_ci:
        sys.exit(0)
    os.makedirs(folder_paths.get_temp_directory(), exist_ok=True)
    try:
        loop.run_until_complete(serve(prompt_server))
    except (asyncio.CancelledError, KeyboardInterrupt):
        logging.info("\nStopped server")
        stop(loop)
    cleanup_temp()


if __name__ == "__main__":
    main()
