"""How good a classifier's answers are, and how sure that is: numpy in, numbers out.

- `typicality`: is an image like those that were learned from?
- `probabilities`: softmax and log-loss.
- `calibration_error`: does what is said with 90 % come true in 90 %?
- `temperature`: the one number by which logits are divided, so that it does.
- `feature_distance`: how far feature vectors are from the expected ones.
- `label_report`: mAP and F1 of splits and of labels, as documents have them.
- `label_sets`: several labels an image: which ones scores give, and how far two sets agree.
- `multilabel`: the same and more for several labels an image: losses, mAP, F1, thresholds.
- `score_interval`: how far chance may have moved an accuracy.
"""
