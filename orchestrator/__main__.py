from orchestrator.cli.experiments import main

main()
