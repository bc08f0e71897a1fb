"""The process that starts, watches, restarts and ends all others; it imports no runtime, serves no request.

run.py        Supervisor: the order of things, from bind to the last child's end
listener.py   the port, bound before anything starts (or handed over by systemd)
folder.py     the private run folder and its locks
child.py      one exec'd process: its end, its log lines
restarts.py   when to start it again, and when to give up
engine.py     one model's engine: states, heartbeat, restarts
http.py       gunicorn
control.py    control.sock: engines report, HTTP workers watch
"""
