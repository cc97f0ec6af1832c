"""scikit-learn's multilayer perceptrons on lamina's engine: change the import, keep the rest."""

from lamina.tabular.mlp_classifier import MLPClassifier as MLPClassifier
from lamina.tabular.mlp_regressor import MLPRegressor as MLPRegressor
