"""What commands share: options, and how they end. Imports no command.

- `judging_images`: which images calibrate, which judge; never too kindly without saying so.
- `kept_epochs`: what an interrupted training left behind.
- `option_effect`: options without effect are refused.
- `options`: options and arguments under one name and one help text.
- `output`: documents and texts on standard output; missing extras named.
- `precision_evidence`: images, a runner and parity for precisions below fp32.
- `rejection_images`: train and val, by which a bundle learns what is like them.
- `verdict`: how a command ends: what it wrote, what to type next.
"""
