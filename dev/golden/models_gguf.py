"""The tiny models of models.py as GGUF files, written by llama.cpp's converter (without a vocabulary): testdata/<case>/model.gguf.

usage: models_gguf.py LLAMA_CPP_FOLDER [CASE...]
"""
import json
import pathlib
import sys
import tempfile

llama_cpp = sys.argv[1]
sys.path[:0] = [llama_cpp, llama_cpp + "/gguf-py"]
import gguf  # noqa: E402
from conversion import get_model_class  # noqa: E402
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES  # noqa: E402

DATA = pathlib.Path(__file__).resolve().parents[2] / "src/model/testdata"
# What no file of llama.cpp can say: ALiBi and norms of queries beyond the models known to have them, other scalings of rope. (Its converter loses the
# norms of stablelm_norms.)
WITHOUT = {"llama_dynamic", "llama_longrope", "llama_mha", "cohere_norms", "falcon_rw", "opt", "opt_after", "llama4_chunks", "ministral", "phi_norms", "stablelm_norms"}

for case in sys.argv[2:] or sorted(folder.name for folder in DATA.iterdir() if folder.is_dir() and folder.name not in WITHOUT):
    config = json.loads((DATA / case / "config.json").read_text())
    vocab_size = config.get("text_config", config)["vocab_size"]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / case
        folder.mkdir()
        classes = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES if "text_config" in config else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        architecture = classes[config["model_type"]]
        config = {**config, "architectures": [architecture]}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "model.safetensors").write_bytes((DATA / case / "model.safetensors").read_bytes())
        tokenizer = {"model": {"vocab": {str(i): i for i in range(vocab_size)}}, "added_tokens": []}  # counted by some
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        model_class = get_model_class(architecture)
        model = model_class(folder, gguf.LlamaFileType.MOSTLY_BF16, DATA / case / "model.gguf")
        model = getattr(model, "impl", model)
        model.set_vocab = lambda: model.gguf_writer.add_vocab_size(vocab_size)
        model.hparams = {**config, **config.get("text_config", {}), **model.hparams}  # some keys do not outlive the configuration class
        model.write()
