"""Names of the tags that the registry and the search write to versions, runs and experiments of MLflow."""

# Of registered versions.
STAGE = "stage"
PENDING = "pokebattle.pending"  # the move in progress
EVENT = "history."  # prefix of the tags that record the moves, one each; the rest of the name is the time
GATES = "gates"  # time and verdict of the latest judgement

# Of the experiments that are tickets of the promotion lock.
BY = "pokebattle.by"

# Of runs.
REPRODUCES = "pokebattle.reproduces"  # id of the run that this one repeats
REPRODUCED = "pokebattle.reproduced"  # the verdict of the repetition
DRIFT = "pokebattle.drift"  # what has changed between run and repetition
TUNED_FROM = "pokebattle.tuned_from"  # id of the search's run whose settings a training used
TRAINED_BY = "pokebattle.trained_by"  # id of the training's run that used the settings of this search
