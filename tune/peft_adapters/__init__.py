"""PEFT's adapters as changes of a backbone's weights: tensors only, nothing of a file is run.

- `adapter_folder`: a folder of `save_pretrained`, its configuration, which modules it means.
- `merged_by_peft`: what only PEFT itself can merge, by PEFT, where it is installed.
- `missing_modules`: what a configuration means and a file lacks.
- `native_kinds`: what the tensors of LoRA, DoRA, (IA)³, SHiRA, BEFT and LN tuning mean.
- `peft_adapter`: all of it: a file and a configuration under our names.
- `refused_kinds`: what does not merge, and why.
"""
