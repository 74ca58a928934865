"""`vptkit profile --on HOST`: copied over ssh, run there, the document back here.

- `board_agent`: the board's side.
- `board_messages`: what a board may say, checked.
- `file_transfer`: our code and bundles, file by file.
- `profile_runner`: what runs there.
- `remote_profile`: `profile_on`, from the desk.
- `ssh_link`: a Python process over the system's ssh.
"""
