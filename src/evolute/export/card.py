"""The model card of a policy, for the Hugging Face Hub."""

# Of an extra.
# pyright: reportMissingImports=false

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from evolute.runs.policies import Source


def code(text: str) -> str:
    """Return text from a run folder as code in Markdown, whatever is in it."""
    return f"`{''.join(c if c.isprintable() and c != '`' else '?' for c in text)}`"


def card(source: Source, result: dict[str, Any] | None, versions: dict[str, str], licence: str, video: str | None) -> str:
    """Return a model card.

    Args:
        source: the policy, and where it comes from.
        result: its mean return, the standard deviation, and the number of episodes, by the names that result.json has; None for
            a policy that was not evaluated on fresh episodes.
        versions: of the libraries that it was trained with.
        licence: by the Hub's names.
        video: the name of one beside it, if there is one.
    """
    policy, env = source.policy, code(source.policy.env)
    mean = source.fitness if result is None else result["return_mean"]
    value = f"{mean:.2f}" if result is None else f"{mean:.2f} +/- {result['return_std']:.2f}"
    how = (
        "the mean return of the evaluation by which it was chosen or ranked, which flatters it"
        if result is None
        else f"the mean return of {result['episodes']} deterministic episodes that no choice was made by"
    )
    data = ModelCardData(
        license=licence,
        library_name="evolute",
        tags=[policy.env, "reinforcement-learning", "deep-reinforcement-learning", "evolute", source.kind],
        model_name=f"{source.kind} on {policy.env}",
        eval_results=[
            EvalResult(
                task_type="reinforcement-learning",
                task_name="reinforcement-learning",
                dataset_type=policy.env,
                dataset_name=policy.env,
                metric_type="mean_reward",
                metric_name="mean_reward",
                metric_value=value,
                verified=False,
            )
        ],
    )
    trained = ", ".join(f"{code(name)} {code(version)}" for name, version in versions.items())
    observations, actions = len(policy.weights[0][0]), len(policy.low)
    shown = f'\n<video controls autoplay loop muted src="{video}"></video>\n' if video else ""
    return f"""---
{data.to_yaml()}
---

# {code(source.kind)} on {env}

A deterministic policy for {env}, trained by [population-based training](https://arxiv.org/abs/1711.09846) with evolute. It is
that of member {source.member} of the population after {source.environment_steps:,} environment steps.
{shown}
## Result

Return **{value.replace("+/-", "±")}**: {how}.

## Use

The policy needs NumPy alone. It takes flat observations, [{observations}] or [N, {observations}], and returns flat
actions, [{actions}] or [N, {actions}], in the environment's units. The scaling of both is inside.

```python
from policy import load

policy = load()
action = policy(observation)
```

With evolute installed, `evolute.load_policy(FOLDER)` returns the same function.

## Files

`policy.safetensors` and `policy.json` are the weights and what they mean; neither can execute code. `policy.py` reads them.

## Trained with

{trained}

## Licence

{code(licence)}
"""
