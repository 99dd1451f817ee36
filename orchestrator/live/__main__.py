from orchestrator.live.commands import app

app()
