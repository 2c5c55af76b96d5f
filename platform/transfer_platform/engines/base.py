"""Interface for engines that run trials."""

from typing import Protocol

from transfer_platform.search.study import FinishedTrial, Trial


class Engine(Protocol):
    """Runs the trials of one study.

    `Study.run` proposes a trial, passes it to `run_trial` and stores the returned value. `LocalEngine` trains in the
    current process; another engine could submit the trial to a cluster and wait for it. An engine:

    - inserts `trial.values` into the study's recipe (`recipe.resolve.resolve`) and trains with the resulting recipe
      (`TrialTrainer.train`);
    - calls `trial.report` after every epoch, so that the study can prune the trial;
    - logs each trial to its own MLflow run (`Tracker.start_trial_run`);
    - if the trial was interrupted in an earlier process (`trial.resumed` is True), continues its MLflow run without
      logging any step twice;
    - may save the weights of the best trial; if they are missing, `LocalEngine.restore` retrains the trial.

    Results must depend only on the recipe, images and seed, not on the machine or on earlier trials.
    """

    def run_trial(self, trial: Trial) -> float:
        """Runs a trial and returns its objective value at the best epoch.

        Raises:
            Pruned: `trial.report` pruned the trial.
            TrainingError: The trial failed, for example because the loss is not finite, memory ran out, or the network
                cannot be trained with the trial's values. The study marks the trial as failed and continues. Any other
                exception ends the process; the next process resumes the trial.
        """

    def train_again(self, trial: FinishedTrial, seed: int) -> float:
        """Trains a finished trial with another seed, without pruning, and returns its value at the best epoch.

        The training has its own MLflow run (`Tracker.start_confirming_run`), in which no step is logged twice.

        Raises:
            TrainingError: As in `run_trial`.
        """
