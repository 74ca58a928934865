"""Does a bundle answer as the reference did, and how often is it right?

- `accuracy`: labelled images, and the answers to them.
- `confusion_plot`: which classes are taken for which, as a picture.
- `evaluation_result`: how often answers are right, in which classes, and how sure they were.
- `evaluation_text`: the same for people.
- `image_batches`: real images in batches, gone through more than once.
- `mistakes_file`: the mistakes as CSV or JSON lines.
- `multilabel_images`: images of a data set with all their labels.
- `multilabel_result`: how right answers of several labels an image are.
- `multilabel_text`: the same for people.
- `parity`: difference from golden answers or the reference.
- `rejection_evaluation`: what `--reject` does to images of the classes, and to others.
- `rejection_rates`: the same, counted.
"""
