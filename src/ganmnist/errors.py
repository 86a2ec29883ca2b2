"""What a user can do something about, told apart from what is a bug of ours."""


class UserError(Exception):
    """A mistake of the user's: a wrong value, a missing file, an impossible combination.

    Its message is one sentence that names the value and the way out. Entry points print it
    without a stack trace and exit with code 2.
    """
