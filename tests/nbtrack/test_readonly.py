"""An executed notebook is the same as without the product; ``make foreign`` looks at many more."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import readonly
from environments import without_product

from nbtrack.kernel.traceback_filter import install, without_tracking

MANY = "values+display_updates+clear_output+tasks+threads+tqdm+rich+streams+learning+expected_errors"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory, shared: Any) -> readonly.Comparison:
    """This environment, tracked, beside the same without the product."""
    folder = tmp_path_factory.mktemp("readonly")
    plain = without_product(folder)
    return readonly.comparing(folder, plain, shared.folder / "state", shared.uri)


@pytest.mark.parametrize(("executor", "name"), [("papermill", MANY), ("nbval", "values_44"), ("papermill", "error_44")])
def test_an_executed_notebook_is_the_same_without_the_product(
    comparison: readonly.Comparison, executor: str, name: str
) -> None:
    comparison.differences.clear()
    left = comparison.compare(executor, name)
    assert '"execution_count": 1' in left.get("out.ipynb", left.get(f"{name}.ipynb", ""))
    assert executor != "nbval" or left["cell Cell 1"] == "passed"
    assert not comparison.differences, "\n".join(comparison.differences)


def test_the_environment_without_the_product_has_everything_else(
    comparison: readonly.Comparison, tmp_path: Path
) -> None:
    code = (
        "import importlib.metadata as m, mlflow, papermill, nbval, sys\n"
        "assert all(d.name != 'pokebattle' for d in m.distributions())\n"
        "assert sys.prefix == sys.argv[1]"
    )
    assert comparison.plain.run(tmp_path, "python", "-I", "-c", code, str(comparison.plain.prefix)) == 0
    assert comparison.plain.prefix != Path(sys.prefix)


def _raised(source: str, **names: Any) -> BaseException:
    try:
        exec(compile(source, "cell", "exec"), names)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def _files(error: BaseException) -> list[str]:
    names, traceback = [], error.__traceback__
    while traceback:
        names.append(Path(traceback.tb_frame.f_code.co_filename).name)
        traceback = traceback.tb_next
    return names


def _ours(function: Any) -> Any:
    """Return a function through which a call passes a frame of tracking's."""
    names: dict[str, Any] = {"function": function}
    exec(compile("def wrapper():\n    return function()", without_tracking.__code__.co_filename, "exec"), names)
    return names["wrapper"]


def test_frames_of_tracking_are_not_in_the_traceback_that_is_shown() -> None:
    def fails() -> None:
        raise KeyError("inner")

    source = "try:\n    call()\nexcept KeyError as error:\n    raise ExceptionGroup('two', [error]) from error"
    error = _raised(source, call=_ours(_ours(fails)))
    assert error.__cause__ is not None and _files(error.__cause__).count("traceback_filter.py") == 2
    shell = SimpleNamespace(_get_exc_info=lambda: (type(error), error, error.__traceback__))
    install(shell)
    assert shell._get_exc_info()[1] is error
    assert _files(error.__cause__) == ["cell", "test_readonly.py"]
    assert _files(error) == ["test_readonly.py", "cell"]
