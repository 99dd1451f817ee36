"""The tasks of `bench/live.py` that an app of the user's own has."""

from orchestrator import App

app = App()


@app.task
async def nothing_async(number: int) -> int:
    return number


@app.task
def nothing(number: int) -> int:
    return number
