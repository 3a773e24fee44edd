"""The embedded server: a private Redis that all of a user's processes share, while any of them wants it.

No process is special, the one that started the server neither. What each may rely on is kept by the kernel, so that it
also holds after `kill -9`: locks (flock), which end with the process that holds them. Per mesh, in a directory of mode
0700:

    <mesh>.lock       exclusive, for moments: to join, to start and to end the server, one at a time
    <mesh>.owners     shared, by every process that uses the server, for as long as it does
    <mesh>.guardian   exclusive, by the guardian: the server's parent, a tiny process that ends it after the last owner
    <mesh>.sock       where the server listens; nothing listens on TCP
    <mesh>.log        what the server and the guardian had to say; stays after a crash, until the next start

The guardian takes the server with it if it dies (on Linux at once, elsewhere at the next start). A server that crashes
takes the guardian with it: owners see their connection break, and may acquire again.

A child made by `fork` shares its parent's hold: the server then lives until both are gone. A program that a process
starts does not. A service manager that ends all processes of the unit which started the server ends the server too.
"""

from datamesh.store.embedded.server import EmbeddedServer

__all__ = ["EmbeddedServer"]
