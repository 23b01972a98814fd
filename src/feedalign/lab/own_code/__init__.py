"""Code of the user's own, named on the command line as "package.module:function"."""

from feedalign.lab.own_code.calling import at_home, called, names_of_points
from feedalign.lab.own_code.digest import got, take_in

__all__ = ["at_home", "called", "got", "names_of_points", "take_in"]
