#include "cli/command_train.h"

#include <memory>

#include "nibble/train.h"

namespace nibble::cli {

namespace {

void add_what(CLI::App& app, TrainRequest& request) {
  app.add_option("IN", request.input, "Hugging Face folder or .gguf file; from scratch: a shape's name or config.json")
      ->required();
  app.add_option("-o,--output", request.output, "the model to write; beside it OUT.run, the run's state and curve")
      ->type_name("OUT")
      ->required();
  app.add_option("--text", request.texts, "plain text to train on (repeatable)")
      ->type_name("FILE")
      ->allow_extra_args(false);
  app.add_option("--data", request.data,
                 "JSON lines to train on (repeatable): {text}, {prompt, completion} or {messages}; answers are learned")
      ->type_name("FILE")
      ->allow_extra_args(false);
  app.add_option("--held-out", request.held_out, "share of the examples that judge and are not learned from")
      ->capture_default_str();
  app.add_flag("--from-scratch", request.from_scratch, "begin with random weights");
  app.add_option("--tokenizer", request.tokenizer, "from scratch: folder of the tokenizer; default: the config's")
      ->type_name("FOLDER");
  app.add_option("-t,--type", request.type, "of plain weights that are written: f32, f16, bf16; default: 16 bits")
      ->type_name("TYPE");
  app.add_option("--format", request.format, "form of quantized weights, as of quantize")->type_name("NAME");
  app.add_option("--qat", request.qat, "train the whole model as it will be in this type")->type_name("TYPE");
  app.add_option("--efficientqat", request.efficientqat,
                 "train each block in this type, then the scales of the whole model")
      ->type_name("TYPE");
  app.add_option("--lora", request.lora,
                 "train an adapter beside the model: r=16,alpha=32,targets=all (or q_proj+v_proj),dropout=0.05,rslora")
      ->type_name("SETTINGS");
  app.add_option("--preset", request.preset, "of --efficientqat: auto, paper")
      ->type_name("NAME")
      ->capture_default_str();
  app.add_option("--block-tokens", request.block_tokens, "tokens that blocks are quantized and tuned with")
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--distill", request.distill,
                 "share in the loss of the divergence from the model as it was; default: 1 with --qat and "
                 "--efficientqat, else 0")
      ->type_name("S");
}

void add_how(CLI::App& app, TrainRequest& request) {
  app.add_option("--steps", request.steps, "default: once through the examples")->type_name("N");
  app.add_option("--batch", request.sequences, "sequences of a batch")->type_name("N")->capture_default_str();
  app.add_option("--accumulate", request.accumulate, "batches of a step")->type_name("N")->capture_default_str();
  app.add_option("--ctx", request.context, "tokens of a sequence; default: 512, or what the model was trained for")
      ->type_name("N");
  app.add_option("--lr", request.lr, "learning rate; default: by what is trained")->type_name("X");
  app.add_option("--optimizer", request.optimizer, "adamw, adamw8bit, lion, signsgd, sgd")
      ->type_name("NAME")
      ->capture_default_str();
  app.add_option("--weight-decay", request.weight_decay, "of matrices, decoupled")->capture_default_str();
  app.add_option("--beta2", request.beta2, "of adamw and lion")->capture_default_str();
  app.add_option("--schedule", request.schedule, "constant, linear, cosine")->type_name("NAME")->capture_default_str();
  app.add_option("--warmup", request.warmup, "steps; default: a twentieth")->type_name("N");
  app.add_option("--clip", request.clip, "greatest norm of the gradient; 0: none")->capture_default_str();
  app.add_option("--seed", request.seed, "of the order of examples, of weights from scratch")->capture_default_str();
  app.add_option("--precision", request.precision,
                 "of products: auto, f32, bf16x3 (each number as the sum of two bf16), bf16; the latter two need AMX; "
                 "auto: bf16x3 where there is AMX, bf16 for --lora")
      ->type_name("NAME")
      ->capture_default_str();
  app.add_flag("--checkpoint", request.checkpoint, "less memory, a third more time: blocks are computed twice");
  app.add_option("--optimizer-memory", request.optimizer_memory, "of its states in RAM, at most; the rest in a file")
      ->type_name("SIZE");
  app.add_option("--eval-every", request.evaluate_every, "steps between looks at what is held out; default: ten times")
      ->type_name("N");
  app.add_option("--save-every", request.save_every, "steps between states on disk")
      ->type_name("N")
      ->capture_default_str();
  app.add_flag("--resume", request.resume, "go on from OUT.run, with the same options");
}

RunCommand setup(CLI::App& app) {
  auto request = std::make_shared<TrainRequest>();
  add_what(app, *request);
  add_how(app, *request);
  return [request](const Invocation& invocation) {
    request->dry_run = invocation.dry_run;
    const TrainReport report = train_model(*request, invocation.run);
    if (invocation.wants_text()) print(to_text(report));
    invocation.write_json(to_json(report));
  };
}

}  // namespace

Command train_command() {
  return {"train", "train a model: on, from scratch, into few bits, or an adapter", true, setup};
}

}  // namespace nibble::cli
