"""Services that tests run in processes of their own: `python -m tests.mesh.services.<name>`."""
