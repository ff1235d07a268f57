"""The command line: one file per command, each a dataclass of options with one thin function.

Options have the library's names; --help shows their defaults. Only the module of the command that runs is imported,
and torch only once it runs.
"""

COMMANDS = {
    "demo": "waterbed.cli.demo:Demo",
    "data": "waterbed.cli.data:Data",
    "train": "waterbed.cli.train:Train",
    "evaluate": "waterbed.cli.evaluate:Evaluate",
    "measure": "waterbed.cli.measure:Measure",
    "sweep": "waterbed.cli.sweep:Sweep",
    "invert": "waterbed.cli.invert:Invert",
    "transfer": "waterbed.cli.transfer:Transfer",
    "distance": "waterbed.cli.distance:Distance",
    "choose": "waterbed.cli.choose:Choose",
    "convert": "waterbed.cli.convert:Convert",
    "report": "waterbed.cli.report:Report",
    "explore": "waterbed.cli.explore:Explore",
    "doctor": "waterbed.cli.doctor:Doctor",
    "completion": "waterbed.cli.completion:Completion",
}
