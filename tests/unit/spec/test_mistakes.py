"""Each kind of mistake is told with its place, what was got, and what is known."""

from __future__ import annotations

import pytest

from tunery.errors import SpecError
from tunery.plan import compile_plan
from tunery.spec import Spec, parse_spec

GOOD = """\
apiVersion: tunery/v1
kind: Sweep
name: good
model: {id: org/model}
tasks: [cola, sst2]
data: {source: hub}
tuner: {method: lora, rank: 8}
train: {epochs: 3}
search:
  trials: 2
  space:
    tuner.rank: {choice: [4, 8]}
"""


def mistakes_of(text: str, **options: object) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, file="x.yaml", **options)  # type: ignore[arg-type]  # overrides, where a test gives them
    return [str(mistake) for mistake in caught.value.mistakes]


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_the_good_one_is_good() -> None:
    assert parse_spec(GOOD, file="x.yaml").name == "good"


# old text, new text, the message with its place
FIELDS = [
    ("kind: Sweep", "kind: Swep", "x.yaml:2:7: kind: unknown value 'Swep'; did you mean 'Sweep'? known: Sweep"),
    ("tunery/v1", "tunery/v9", "x.yaml:1:13: apiVersion: unknown value 'tunery/v9'; did you mean 'tunery/v1'?"),
    ("name: good", "name: Good One", "x.yaml:3:7: name: expected lower-case letters"),
    ("name: good", "name: 5", "x.yaml:3:7: name: expected text, got 5"),
    ("name: good\n", "", "x.yaml:1:1: missing key 'name'"),
    ("model: {id: org/model}", "model: {}", "x.yaml:4:8: missing key 'id' in model"),
    ("model: {id: org/model}", "model: x", "x.yaml:4:8: model: expected a mapping, got 'x'"),
    ("epochs: 3", "epoch: 3", "x.yaml:8:9: unknown key 'epoch' in train; did you mean 'epochs'? known: learning_rate"),
    ("epochs: 3", "lr: 3", "x.yaml:8:9: unknown key 'lr' in train; did you mean 'learning_rate'?"),
    ("epochs: 3", "epochs: 3.5", "x.yaml:8:17: train.epochs: expected a whole number, got 3.5"),
    ("epochs: 3", "epochs: '3'", "x.yaml:8:17: train.epochs: expected a whole number, got '3'"),
    ("epochs: 3", "epochs: true", "x.yaml:8:17: train.epochs: expected a whole number, got true"),
    ("epochs: 3", "epochs: ~", "x.yaml:8:17: train.epochs: expected a whole number, got nothing"),
    ("epochs: 3", "checkpoint: 5", "x.yaml:8:21: train.checkpoint: expected a mapping, got 5"),
    ("epochs: 3", "checkpoint: {every_steps: -1}", "x.yaml:8:35: train.checkpoint.every_steps: expected a value at l"),
    ("epochs: 3", "checkpoint: {keep: 0}", "x.yaml:8:28: train.checkpoint.keep: expected a value at least 1, got 0"),
    ("epochs: 3", "checkpoint: {every: 9}", "x.yaml:8:22: unknown key 'every' in train.checkpoint; did you mean"),
    ("epochs: 3", "epochs: 0", "x.yaml:8:17: train.epochs: expected a value at least 1, got 0"),
    ("epochs: 3", "learning_rate: fast", "x.yaml:8:24: train.learning_rate: expected a number, got 'fast'"),
    ("epochs: 3", "learning_rate: .inf", "x.yaml:8:24: train.learning_rate: expected a finite number"),
    ("epochs: 3", "learning_rate: .nan", "x.yaml:8:24: train.learning_rate: expected a finite number"),
    ("epochs: 3", "warmup_ratio: 1", "x.yaml:8:23: train.warmup_ratio: expected a value below 1, got 1"),
    ("epochs: 3", "clip_norm: 0", "x.yaml:8:20: train.clip_norm: expected a value above 0, got 0"),
    ("epochs: 3", "schedule: cosinus", "x.yaml:8:19: train.schedule: unknown value 'cosinus'; did you mean 'cosine'?"),
    ("method: lora", "method: lara", "x.yaml:7:8: tuner: unknown method 'lara'; did you mean 'lora'?"),
    ("method: lora, ", "", "x.yaml:7:8: missing key 'method' in tuner; known methods: full, lora, qlora"),
    ("rank: 8", "rnak: 8", "x.yaml:7:23: unknown key 'rnak' in tuner; did you mean 'rank'?"),
    ("rank: 8", "rank: 0", "x.yaml:7:29: tuner.rank: expected a value at least 1, got 0"),
    ("rank: 8", "target_modules: q", "x.yaml:7:39: tuner.target_modules: expected a list or 'all-linear', got 'q'"),
    ("rank: 8", "double_quantisation: true", "x.yaml:7:23: unknown key 'double_quantisation' in tuner"),
    ("tasks: [cola, sst2]", "tasks: []", "x.yaml:5:8: tasks: expected at least 1 item, got 0"),
    ("tasks: [cola, sst2]", "tasks: cola", "x.yaml:5:8: tasks: expected a list, got 'cola'"),
    ("trials: 2", "trials: 1000000", "x.yaml:10:11: search.trials: expected a value at most 100000, got 1000000"),
    (
        "trials: 2",
        "sampler: {name: tpy}",
        "x.yaml:10:19: search.sampler.name: unknown value 'tpy'; did you mean 'tpe'?",
    ),
    (
        "trials: 2",
        "pruner: {name: mean}",
        "x.yaml:10:18: search.pruner.name: unknown value 'mean'; did you mean 'median",
    ),
    (
        "trials: 2",
        "warm_start: registy",
        "x.yaml:10:15: search.warm_start: unknown value 'registy'; did you mean 'regi",
    ),
    ("trials: 2", "warmstart: none", "x.yaml:10:3: unknown key 'warmstart' in search; did you mean 'warm_start'?"),
    (
        "trials: 2",
        "rerun_best: {seeds: 0}",
        "x.yaml:10:23: search.rerun_best.seeds: expected a value at least 1, got",
    ),
    ("trials: 2", "rerun_best: {top: 2}", "x.yaml:10:15: missing key 'seeds' in search.rerun_best"),
    ("trials: 2", "rerun_best: 3", "x.yaml:10:15: search.rerun_best: expected a mapping, got 3"),
    ("trials: 2", "env: {A: b}", "x.yaml:10:3: unknown key 'env' in search: servers, packages, commands"),
    ("kind: Sweep", "kind: Sweep\ntracking_uri: http://x", "x.yaml:3:1: unknown key 'tracking_uri': servers"),
]
MEANING = [
    (
        "cola, ",
        "clola, ",
        "x.yaml:5:9: unknown task 'clola'; did you mean 'cola'? known: acceptability, ",
    ),
    ("sst2]", "cola]", "x.yaml:5:15: task 'cola' is listed twice"),
    ("sst2]", "acceptability]", "x.yaml:5:15: task 'acceptability' is not on the hub; use data: {source: embedded}"),
    ("source: hub", "source: embedded", "x.yaml:5:9: task 'cola' has no embedded data; tasks that have: acceptab"),
    ("source: hub", "source: path", "x.yaml:6:16: source 'path' needs data.root"),
    ("source: hub", "source: path, root: 's3://b/c'", "x.yaml:6:28: expected a folder, got 's3://b/c': rows are not"),
    ("source: hub", "source: path, root: 'file:///c'", "x.yaml:6:28: expected a folder, got 'file:///c'"),
    ("source: hub", "root: data", "x.yaml:6:14: data.root is used with source 'path' only"),
    ("org/model", "https://hf.co/org/model", "x.yaml:4:13: 'https://hf.co/org/model' is a URL; expected a hub id"),
    ("org/model", "a/b/c", "x.yaml:4:13: expected a hub id (org/name), a folder (beginning with / or ./ or ../)"),
    ("org/model", "embedded:mini", "x.yaml:4:13: unknown embedded model 'embedded:mini'; did you mean 'embedded:minil"),
    ("org/model", "'${MODEL}'", "x.yaml:4:13: '${MODEL}': a spec holds no environment variables"),
    ("tuner.rank:", "tuner.rnak:", "x.yaml:12:5: unknown path 'tuner.rnak'; did you mean 'tuner.rank'? known: train."),
    ("tuner.rank:", "tuner.method:", "x.yaml:12:5: tuner.method cannot be searched: a trial keeps its study's method"),
    ("tuner.rank:", "train.max_length:", "x.yaml:12:5: train.max_length cannot be searched: the rows are cut"),
    ("tuner.rank:", "tuner.target_modules:", "x.yaml:12:5: tuner.target_modules cannot be searched: its value is a l"),
    ("tuner.rank:", "data.seed:", "x.yaml:12:5: data.seed cannot be searched: a sweep's trials share the model"),
    ("tuner.rank:", "model.id:", "x.yaml:12:5: model.id cannot be searched"),
    ("choice: [4, 8]", "choice: [0, 8]", "x.yaml:12:27: tuner.rank: expected a value at least 1, got 0"),
    ("choice: [4, 8]", "choice: [4, 8.5]", "x.yaml:12:30: tuner.rank: expected a whole number, got 8.5"),
    (
        "choice: [4, 8]",
        "choice: [4, 4]",
        "x.yaml:12:26: search.space.tuner.rank.choice: expected a choice between disti",
    ),
    ("choice: [4, 8]", "choice: []", "x.yaml:12:26: search.space.tuner.rank.choice: expected at least 1 item, got 0"),
    ("choice: [4, 8]", "choice: 4", "x.yaml:12:26: search.space.tuner.rank.choice: expected a list, got 4"),
    ("choice: [4, 8]", "choice: [[4]]", "x.yaml:12:27: search.space.tuner.rank.choice[0]: expected a number, a word"),
    ("choice: [4, 8]", "uniform: [4, 8]", "x.yaml:12:27: tuner.rank takes whole numbers; use int_uniform or choice"),
    ("choice: [4, 8]", "int_uniform: [0, 8]", "x.yaml:12:32: tuner.rank: expected a value at least 1, got 0"),
    (
        "choice: [4, 8]",
        "int_uniform: [8, 4]",
        "x.yaml:12:31: search.space.tuner.rank.int_uniform: expected [lower end, upper",
    ),
    (
        "choice: [4, 8]",
        "int_uniform: [4]",
        "x.yaml:12:31: search.space.tuner.rank.int_uniform: expected two ends, got 1",
    ),
    (
        "choice: [4, 8]",
        "int_uniform: []",
        "x.yaml:12:31: search.space.tuner.rank.int_uniform: expected two ends, got 0",
    ),
    ("choice: [4, 8]", "int_uniform: [1, 2, 3]", "search.space.tuner.rank.int_uniform: expected at most 2 items, got"),
    ("choice: [4, 8]", "log_uniform: [0, 4]", "expected two ends above 0"),
    ("choice: [4, 8]", "chioce: [4, 8]", "x.yaml:12:18: unknown kind of range 'chioce'; did you mean 'choice'?"),
    ("{choice: [4, 8]}", "[4, 8]", "x.yaml:12:17: search.space.tuner.rank: expected a range: a mapping with one of"),
    ("tuner.rank: {choice: [4, 8]}", "tuner.dropout: {uniform: [0, 2]}", "x.yaml:12:34: tuner.dropout: expected a va"),
    (
        "tuner.rank: {choice: [4, 8]}",
        "train.schedule: {int_uniform: [1, 2]}",
        "x.yaml:12:35: train.schedule does not take numbers; use choice",
    ),
    ("  space:\n    tuner.rank: {choice: [4, 8]}\n", "", "x.yaml:10:11: 2 trials, but search.space is empty"),
    (
        "trials: 2",
        "trials: 3\n  sampler: {name: grid}",
        "x.yaml:10:11: 3 trials, but the grid has 2 combinations: at most 2",
    ),
    (
        "    tuner.rank: {choice: [4, 8]}",
        "    tuner.dropout: {uniform: [0, 0.2]}\n  sampler: {name: grid}",
        "x.yaml:12:30: tuner.dropout: a grid has listed values only; use choice (or int_uniform), or another sampler",
    ),
    (
        "    tuner.rank: {choice: [4, 8]}",
        "    train.seed: {int_uniform: [0, 100000]}\n  sampler: {name: grid}",
        "x.yaml:11:3: a grid of 100001 combinations; at most 100000",
    ),
    (
        "    tuner.rank: {choice: [4, 8]}",
        "    train.seed: {choice: [4, 8]}\n  rerun_best: {seeds: 2}",
        "x.yaml:13:3: the best are run again with other seeds, but search.space draws train.seed: drop one",
    ),
]
MORE = [
    ("overrides: {cola: {train.epoch: 4}}", "x.yaml:13:20: unknown path 'train.epoch'; did you mean 'train.epochs'?"),
    ("overrides: {cola: {train.epochs: x}}", "x.yaml:13:34: train.epochs: expected a whole number, got 'x'"),
    ("overrides: {cola: {train.epochs: [1]}}", "x.yaml:13:34: train.epochs: expected a whole number, got a list"),
    ("overrides: {cola: {search.trials: 0}}", "x.yaml:13:35: search.trials: expected a value at least 1, got 0"),
    ("overrides: {cola: {data.root: x}}", "x.yaml:13:20: unknown path 'data.root'"),
    ("overrides: {cola: {search.rerun_best: 2}}", "x.yaml:13:20: unknown path 'search.rerun_best'"),
    (
        "overrides: {cola: {search.sampler.name: grid, search.trials: 3}}",
        "x.yaml:13:62: 3 trials, but the grid has 2 combinations",
    ),
    (
        "overrides: {cola: {search.trials: 3}}\nmatrix: {search.sampler.name: [tpe, grid]}",
        "x.yaml:13:35: 3 trials, but the grid has 2 combinations",
    ),
    (
        "overrides: {col: {train.epochs: 1}}",
        "x.yaml:13:13: 'col' is not one of this spec's tasks; did you mean 'cola'?",
    ),
    ("matrix: {tuner.rank: [1, 2]}", "x.yaml:13:10: tuner.rank is drawn by search.space too"),
    ("matrix: {train.epochs: []}", "x.yaml:13:24: expected 1 to 1000 values, got 0"),
    ("matrix: {train.epochs: [1, 1]}", "x.yaml:13:28: 1 is listed twice"),
    ("matrix: {train.epochs: [1, 0]}", "x.yaml:13:28: train.epochs: expected a value at least 1, got 0"),
    ("matrix: {train.epoch: [1]}", "x.yaml:13:10: unknown path 'train.epoch'; did you mean 'train.epochs'?"),
    ("matrix: {tuner.method: [lora, lara]}", "x.yaml:13:31: tuner.method: unknown method 'lara'; did you mean 'lora'?"),
    (
        "matrix: {model.source: [hub, modelscope], model.id: [a/b, bert-base]}",
        "x.yaml:13:30: 'bert-base' is no model of ModelScope: expected org/name, or another source",
    ),
    ("matrix: {model.id: [a/b, 'http://x']}", "x.yaml:13:26: 'http://x' is a URL"),
    ("registry: {name: '{tsk}'}", "x.yaml:13:18: unknown placeholder '{tsk}'; did you mean '{task}'?"),
    ("registry: {name: one}", "x.yaml:13:18: registry.name lacks {task}"),
    ("registry: {name: 'a/{task}'}", "x.yaml:13:18: expected letters, digits"),
    ("registry: {name: '{task'}", "x.yaml:13:18: not a template"),
    ("registry: {name: '{task.x}'}", "x.yaml:13:18: unknown placeholder '{task.x}'"),
    ("registry: {alias: 'No!'}", "x.yaml:13:19: registry.alias: expected a lower-case letter"),
    (
        "resources: {gradient_checkpointing: maybe}",
        "x.yaml:13:37: resources.gradient_checkpointing: expected true or false, got 'maybe'",
    ),
    ("resources: {seats: 0}", "x.yaml:13:20: resources.seats: expected a value at least 1, got 0"),
    ("resources: {packs: 0}", "x.yaml:13:20: resources.packs: expected a value at least 1, got 0"),
    ("resources: {packs: all}", "x.yaml:13:20: resources.packs: expected a whole number or 'auto', got 'all'"),
]


@pytest.mark.parametrize(("old", "new", "message"), FIELDS + MEANING)
def test_a_mistake_is_told_with_its_place(old: str, new: str, message: str) -> None:
    found = mistakes_of(changed(old, new))
    assert any(message in mistake for mistake in found), found


@pytest.mark.parametrize(("line", "message"), MORE)
def test_a_mistake_in_a_further_section_is_told_with_its_place(line: str, message: str) -> None:
    found = mistakes_of(GOOD + line + "\n")
    assert any(message in mistake for mistake in found), found


def test_one_mistake_is_told_once() -> None:
    for old, new, _ in FIELDS:
        assert len(mistakes_of(changed(old, new))) <= 2, new  # a missing method makes the tuner's keys unknown at most


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = changed("cola, ", "clola, ").replace("epochs: 3", "epochs: 0").replace("kind: Sweep", "kind: S")
    found = mistakes_of(text + "bogus: 1\n")
    assert [mistake.split(": ")[0] for mistake in found] == ["x.yaml:2:7", "x.yaml:5:9", "x.yaml:8:17", "x.yaml:13:1"]


@pytest.mark.parametrize("path", ["tuner.double_quantisation", "tuner.dequantise"])
def test_what_belongs_to_the_base_is_not_searched(path: str) -> None:
    text = GOOD.replace("method: lora", "method: qlora")
    found = mistakes_of(text.replace("tuner.rank: {choice: [4, 8]}", f"{path}: {{choice: [true, false]}}"))
    assert found[0].startswith(f"x.yaml:12:5: {path} cannot be searched: a study's trials share one base")


@pytest.mark.parametrize("path", ["tuner.quantise", "tuner.kept_mib"])
def test_what_belongs_to_a_base_beside_is_not_searched(path: str) -> None:
    text = GOOD.replace("method: lora, rank: 8", "method: qst")
    found = mistakes_of(text.replace("tuner.rank: {choice: [4, 8]}", f"{path}: {{choice: [1, 0]}}"))
    assert found[0].startswith(f"x.yaml:12:5: {path} cannot be searched: a study's trials share one base")


def test_a_base_that_seats_train_beside_has_one_worker() -> None:
    text = GOOD.replace("method: lora, rank: 8", "method: qst").replace("tuner.rank", "tuner.down_rank")
    assert mistakes_of(text + "resources: {workers: 2}\n") == [
        "x.yaml:13:22: resources.workers: method qst needs the base whole, expected 1 worker, got 2"
    ]


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("epochs: 3", "optimizer: paged_adamw_8bit", "8:20: train.optimizer"),
        ("kind:", "matrix: {train.optimizer: [adamw, paged_adamw_8bit]}\nkind:", "2:35: matrix.train.optimizer[1]"),
        (
            "kind:",
            "overrides: {cola: {train.optimizer: paged_adamw_8bit}}\nkind:",
            "2:37: overrides.cola.train.optimizer",
        ),
        (
            "tuner.rank: {choice: [4, 8]}",
            "train.optimizer: {choice: [adamw, paged_adamw_8bit]}",
            "12:39: search.space.train.optimizer.choice[1]",
        ),
    ],
)
def test_only_a_gpu_has_pages(old: str, new: str, place: str) -> None:
    text = changed(old, new)
    assert mistakes_of(text) == [
        f"x.yaml:{place}: paged_adamw_8bit needs a GPU (resources.gpus_per_worker): use adamw_8bit"
    ]
    parse_spec(text + "resources: {gpus_per_worker: 1}\n", file="x.yaml")
    parse_spec(text.replace("paged_adamw", "adamw"), file="x.yaml")


def test_an_overridden_path_must_be_one_of_every_compared_method() -> None:
    text = GOOD + "matrix: {tuner.method: [lora, qlora]}\noverrides: {cola: {tuner.double_quantisation: false}}\n"
    assert mistakes_of(text) == ["x.yaml:14:20: the method lora has no tuner.double_quantisation"]


def test_an_override_of_what_is_drawn_is_the_first_draw() -> None:
    text = GOOD + "overrides: {cola: {tuner.rank: 4}}\n"
    cola, sst2 = compile_plan(parse_spec(text, file="x.yaml")).studies
    assert (cola.default_draw(), sst2.default_draw()) == ({"tuner.rank": 4}, {"tuner.rank": 8})
    assert mistakes_of(text.replace("tuner.rank: 4", "tuner.rank: 5")) == [
        "x.yaml:13:32: tuner.rank is drawn by search.space, whose range has no 5: it would have no effect"
    ]


def test_a_grid_of_some_tasks_says_nothing_of_the_others() -> None:
    several = GOOD.replace("trials: 2", "trials: 5")
    assert parse_spec(several + "overrides: {cola: {search.sampler.name: grid, search.trials: 2}}\n", file="x")
    assert mistakes_of(several + "overrides: {cola: {search.sampler.name: grid}}\n") == [
        "x.yaml:10:11: 5 trials, but the grid has 2 combinations: at most 2"
    ]


def test_too_many_studies_are_refused() -> None:
    values = ", ".join(map(str, range(1, 600)))
    assert mistakes_of(GOOD + f"matrix: {{train.epochs: [{values}]}}\n") == [
        "x.yaml:13:1: 1198 studies (tasks x cells); at most 1000"
    ]


class TestSet:
    """`--set key=value`."""

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("train.epoch=3", "--set train.epoch: unknown key 'epoch' in train; did you mean 'epochs'?"),
            ("train.epochs=x", "--set train.epochs: train.epochs: expected a whole number, got 'x'"),
            ("train.epochs", "--set train.epochs: expected KEY=VALUE"),
            ("=3", "--set =3: expected KEY=VALUE"),
            ("train.epochs=[", "--set train.epochs: not YAML"),
            ("train.epochs=!!int 3", "--set train.epochs: a YAML tag"),
            ("name.x=3", "--set name.x: name is not a mapping in x.yaml"),
            ("tasks=[clola]", "--set tasks: unknown task 'clola'"),
            ("search.space.tuner.rank={choice: [0]}", "--set search.space.tuner.rank: tuner.rank: expected a value at"),
            ("overrides.cola.train.epochs=0", "--set overrides.cola.train.epochs: train.epochs: expected a value at l"),
            ("nonsense=1", "--set nonsense: unknown key 'nonsense'"),
        ],
    )
    def test_a_mistake_names_the_option(self, override: str, message: str) -> None:
        found = mistakes_of(GOOD, overrides=[override])
        assert any(mistake.startswith(message) for mistake in found), found

    def test_values_are_put_in(self) -> None:
        spec = parse_spec(
            GOOD,
            file="x.yaml",
            overrides=[
                "train.epochs=1",
                "train.learning_rate=1e-5",
                "tasks=[sst2]",
                "search.space.train.batch_size={choice: [8, 16]}",
                "overrides.sst2.train.max_length=64",
                "matrix.train.schedule=[linear]",
                "data.max_train=",
            ],
        )
        assert (spec.train.epochs, spec.train.learning_rate, spec.tasks) == (1, 1e-5, ("sst2",))
        assert list(spec.search.space) == ["tuner.rank", "train.batch_size"]
        assert spec.overrides == {"sst2": {"train.max_length": 64}}
        assert spec.matrix == {"train.schedule": ("linear",)}
        assert spec.data.max_train is None

    def test_a_later_one_wins(self) -> None:
        assert parse_spec(GOOD, file="x", overrides=["train.epochs=1", "train.epochs=2"]).train.epochs == 2


def test_numbers_are_numbers() -> None:
    spec = parse_spec(changed("epochs: 3", "learning_rate: 1e-5, weight_decay: 1E-2, clip_norm: 2"), file="x")
    assert (spec.train.learning_rate, spec.train.weight_decay, spec.train.clip_norm) == (1e-5, 1e-2, 2.0)


def test_a_spec_cannot_be_changed() -> None:
    spec = parse_spec(GOOD, file="x")
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]  # that it is refused is the test


def test_what_is_left_out_of_train_stays_left_out_when_written_and_read() -> None:
    spec = parse_spec(GOOD, file="x")
    again = Spec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.train.model_fields_set == {"epochs"}
    assert again.digest() == spec.digest()


def test_the_digest_is_that_of_the_meaning() -> None:
    same = GOOD.replace("data: {source: hub}\n", "").replace("rank: 8", "alpha: 16.0, rank: 8")
    assert parse_spec(same, file="x").digest() == parse_spec(GOOD, file="y").digest()
    assert parse_spec(changed("rank: 8", "rank: 9"), file="x").digest() != parse_spec(GOOD, file="x").digest()
