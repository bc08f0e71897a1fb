"""The process that starts, watches, restarts and ends all others; it imports no runtime, serves no request.

run.py        Supervisor: the order of things, from bind to the last child's end
listener.py   the port, bound before anything starts (or handed over by systemd)
folder.py     the private run folder and its locks
child.py      one exec'd process: its end, its log lines
restarts.py   when to start it again, and when to give up
http.py       gunicorn
control.py    control.sock: engines report, HTTP workers watch and give orders
workers.py    what those workers use, and whether they can serve a build
fleet.py      which models are loaded: load, unload, swap, wake
chores.py     what it does meanwhile, nobody waiting
names.py      what clients call them
room.py       who sleeps so that others find room
planning.py   whether memory suffices
bundles.py    where a model's files are
build.py      one build of a model
engine.py     one engine of it: states, heartbeat, restart; engines.py: all of them
"""
