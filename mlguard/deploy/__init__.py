"""From a model file to live traffic and back: training, rollout, watching."""
