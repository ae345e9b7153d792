"""What every face does with a call: read a draft's faults, prove the caller, admit, relay the answer, name its end.

Faces (`rpc`, `http`) translate their wire format into a draft and the events of
an answer back; what is refused, by which right and with which code is decided here.
"""
