"""A service of tasks that other modules implement, which can be imported again: the suspects."""

from tests.mesh.services import suspects
from tests.mesh.services.serving import serve

if __name__ == "__main__":
    serve(tasks=[suspects.skipped, suspects.split, suspects.touchy_names, suspects.endless], lease=1.0, grace=5.0)
