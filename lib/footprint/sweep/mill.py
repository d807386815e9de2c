"""The inner process of a run: papermill executes one notebook, says how it ended, and dies when its parent does."""

import json
import os
import shutil
import signal
import sys
import threading

import psutil

MARK = "\x1e"  # starts the last line: the verdict, as JSON
LOST = (
    "GpuIsLost",
    "GPU is lost",
    "fallen off the bus",
    "device-side error",
    "unspecified launch failure",
)
MEMORY = ("OutOfMemoryError", "MemoryError", "allocate memory", "CUDA out of memory")


def execute(template: str, page: str, parameters: dict, root: str, start_s: float) -> dict:
    """Execute `template` into `page`; the verdict: status, reason, and whether a second try could end otherwise."""
    import papermill
    from jupyter_client.manager import AsyncKernelManager

    class Local(AsyncKernelManager):
        """A kernel that is reached over sockets in a folder of the run: parallel starts cannot fight over ports."""

        def __init__(self, *arguments, **settings):
            sockets = os.path.join(os.environ["JUPYTER_RUNTIME_DIR"], "kernel")
            super().__init__(*arguments, **{"transport": "ipc", "ip": sockets, **settings})

    try:
        papermill.execute_notebook(
            template,
            page,
            parameters,
            progress_bar=False,
            stdout_file=sys.stdout,
            cwd=root,
            start_timeout=start_s,
            kernel_manager_class=Local,
        )
    except BaseException as error:
        return verdict(error, start_s)
    return {"status": "ok", "reason": "", "again": False}


def verdict(error: BaseException, start_s: float) -> dict:
    """What an exception of papermill means for the run, in the schema's words."""
    name, said = (
        getattr(error, "ename", type(error).__name__),
        str(getattr(error, "evalue", error)).strip(),
    )
    first = said.splitlines()[0].rstrip(".") if said else "no reason was given"
    if name == "Refused":
        return {"status": "failed", "reason": said, "again": False}
    if name == "KeyboardInterrupt":
        return {"status": "interrupted", "reason": "Stopped by the keyboard.", "again": False}
    if name == "DeadKernelError" or "Kernel died" in said:
        return {
            "status": "dead_kernel",
            "reason": "The kernel died (killed, or out of memory).",
            "again": True,
        }
    if "Kernel didn't respond" in said:
        return {
            "status": "timeout",
            "reason": f"The kernel did not start within {start_s:g} s.",
            "again": True,
        }
    if name in MEMORY or any(words in said for words in MEMORY):
        return {
            "status": "oom",
            "reason": f"Out of memory before the first point: {first}.",
            "again": False,
        }
    lost = any(words in name or words in said for words in LOST)
    return {
        "status": "gpu_lost" if lost else "failed",
        "reason": f"{name}: {first}.",
        "again": True,
    }


def _die_with_parent() -> None:
    """Wait until standard input closes (the parent is gone), then take the kernel along; its group is its own."""
    sys.stdin.read()
    shutil.rmtree(os.environ.get("JUPYTER_RUNTIME_DIR", ""), ignore_errors=True)
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Read an order, a line of JSON, from standard input; execute it; write the verdict as the last line."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    said = execute(**order)
    sys.stdout.write(f"\n{MARK}{json.dumps(said)}\n")
    sys.stdout.flush()
    os._exit(0)  # the thread that watches the parent would hold the exit up


if __name__ == "__main__":
    main()
