from plugin_sdk.testing.fixtures import guest, guest_runner, pytest_pyfunc_call

__all__ = ["guest", "guest_runner", "pytest_pyfunc_call"]
