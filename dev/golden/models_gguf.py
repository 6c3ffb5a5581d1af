"""The tiny models of models.py as GGUF files, written by llama.cpp's converter (without a vocabulary): testdata/<case>/model.gguf.

usage: models_gguf.py LLAMA_CPP_FOLDER
"""
import json
import pathlib
import sys
import tempfile

llama_cpp = sys.argv[1]
sys.path[:0] = [llama_cpp, llama_cpp + "/gguf-py"]
import gguf  # noqa: E402
from conversion import get_model_class  # noqa: E402

DATA = pathlib.Path(__file__).resolve().parents[2] / "src/model/testdata"
ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}

for case in ["llama_rope3", "llama_linear", "llama_yarn", "mistral", "qwen2", "qwen3"]:
    config = json.loads((DATA / case / "config.json").read_text())
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / case
        folder.mkdir()
        architecture = ARCHITECTURES[config["model_type"]]
        config = {**config, "architectures": [architecture]}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "model.safetensors").write_bytes((DATA / case / "model.safetensors").read_bytes())
        model_class = get_model_class(architecture)
        model_class.set_vocab = lambda self: self.gguf_writer.add_vocab_size(self.hparams["vocab_size"])
        model = model_class(folder, gguf.LlamaFileType.MOSTLY_BF16, DATA / case / "model.gguf")
        model.write()
