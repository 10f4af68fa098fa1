"""How the stages are run: `local` uses processes of this machine."""
