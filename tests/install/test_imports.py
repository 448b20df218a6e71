"""What importing costs: the package and its help load nothing heavy."""

import json
import resource
import subprocess
import sys

HEAVY = {
    "alembic",
    "evidently",
    "fastapi",
    "great_expectations",
    "matplotlib",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "sqlalchemy",
}


def loaded(code):
    """Return the top-level modules that are loaded after some code has run."""
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            f"import json, sys\n{code}\nprint(json.dumps(list(sys.modules)))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_mlguard_loads_nothing_heavy():
    """`import mlguard` costs next to nothing, for notebooks and for pytest alike."""
    assert not HEAVY & loaded("import mlguard")


def test_the_client_needs_httpx_only():
    """A program that only asks for predictions loads none of the server's libraries."""
    assert not HEAVY & loaded("import mlguard; mlguard.Client('http://localhost:1')")


def test_help_loads_nothing_heavy():
    """`mlguard --help` answers from the command line's own code."""
    code = (
        "import contextlib, io\n"
        "from mlguard.cli.__main__ import main\n"
        "sys.argv = ['mlguard', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main()"
    )
    assert not HEAVY & loaded(code)


def test_help_answers_in_half_a_second_of_processor_time():
    """Measured as the processor time of the child, which a busy machine does not stretch much."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "mlguard.cli", "--help"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    assert spent < 0.5


def test_the_front_end_loads_no_judging_library():
    """What answers predictions has neither expectations nor drift reports nor plots in it."""
    found = loaded("import mlguard.server_app")
    assert (
        not {"evidently", "great_expectations", "matplotlib", "pandas", "pytest", "sklearn"} & found
    )


def test_the_front_end_loads_no_library_before_it_is_needed():
    """Migrations, runtimes, logs and buckets wait for the first who needs them: start-up is
    imports, so each of these would be waited for by whoever restarts a server."""
    found = loaded("import mlguard.server_app")
    late = {"alembic", "fsspec", "onnxruntime", "psutil", "psycopg", "pyarrow", "river", "scipy"}
    assert not late & found


def test_a_front_end_that_is_begun_ahead_loads_what_it_will_need():
    """What is imported before the orders come is a part of what is imported anyway."""
    code = (
        "import importlib\n"
        "from mlguard.serving.ahead import LIBRARIES\n"
        "for name in LIBRARIES: importlib.import_module(name)"
    )
    front = "import mlguard.server_app, mlguard.serving.uvicorn_server, uvloop"
    ahead = loaded(code)
    assert ahead <= loaded(front) | {"mlguard.serving.ahead", "runpy"}
    # It reads the environment when it is imported, and that is not known yet.
    assert "prometheus_client" not in ahead


def test_beginning_a_front_end_ahead_costs_nothing_itself():
    """What starts it is loaded before anything else, so it loads nothing else."""
    assert not (HEAVY | {"pydantic", "numpy"}) & loaded("import mlguard.serving.ahead")


def test_the_supervisor_waits_for_no_library():
    """Until the first answer it needs the settings and a socket, and no database."""
    found = loaded("import mlguard.cli.serving, mlguard.project, mlguard.serving.supervisor")
    assert not (HEAVY | {"numpy"}) & found


def test_the_dashboard_loads_no_drawing_library():
    """Somebody who looks at a page costs the server neither plots nor data frames."""
    found = loaded(
        "import mlguard.dashboard.view, mlguard.dashboard.gallery, mlguard.reports.card_page\n"
        "from mlguard.dashboard.pages import _environment\n"
        "[_environment().get_template(name) for name in _environment().list_templates()"
        " if name.endswith('.j2')]"
    )
    assert "jinja2" in found
    assert (
        not {"evidently", "great_expectations", "matplotlib", "pandas", "pytest", "sklearn"} & found
    )


def test_the_watcher_loads_no_drawing_library():
    """The process that judges live traffic draws nothing itself."""
    found = loaded("import mlguard.deploy.monitoring")
    assert not {"evidently", "great_expectations", "matplotlib", "pytest"} & found


def test_every_public_name_is_there():
    """What `dir(mlguard)` lists can be had."""
    import mlguard

    for name in mlguard.__all__:
        assert getattr(mlguard, name) is not None
