"""Which tokens go through the model to score continuations of contexts, and where to look for the answers.

The requests of one question have most of their tokens in common: all choices continue one context, and some
of them differ in their last tokens only. Their tokens are laid out as one tree, every shared beginning once;
a token attends to those before it on its own path and has the position that it has there. So each request
gets the numbers that it would get by itself, for a fraction of the tokens. A tree without branches is an
ordinary sequence: choices of one token each cost one forward pass together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch

from fractopt.space import IntArray

# Text pair, tokens of the context, tokens of the continuation: lm-eval's encoded request.
Request: TypeAlias = tuple[tuple[str, str], list[int], list[int]]

# A mask grows with the square of the tokens: a tree of more, or one that saves less than a tenth, is none.
LONGEST_TREE, LEAST_SAVED = 4096, 0.1


@dataclass(frozen=True)
class Forward:
    """One batch of a scoring pass, on the device.

    ids (b, T) are padded at the right. Of rows that are trees, depth (b, T) is the position of each token on
    its path, and those that come after it on some path are the ones before end (b, T): a branch is complete
    before the next begins. Both are None where every row is an ordinary sequence. The hidden states at
    [row, column] (p,) are looked at; each of n tokens to be scored is `token` (n,) as the continuation of
    state `place` (n,), and its log-probability belongs to the request of index `request` (n,). `tokens` are
    in ids, without the padding.
    """

    ids: torch.Tensor
    depth: torch.Tensor | None
    end: torch.Tensor | None
    row: torch.Tensor
    column: torch.Tensor
    place: torch.Tensor
    token: torch.Tensor
    request: IntArray
    tokens: int

    def visible(self) -> torch.Tensor | None:
        """Which token (first T) attends to which (second), (b, 1, T, T); None where to all before it."""
        if self.end is None:
            return None
        at = torch.arange(self.ids.shape[1], device=self.ids.device)
        return ((at <= at[:, None]) & (at[:, None] < self.end[:, None, :]))[:, None]


@dataclass
class _Tree:
    """Tokens, each after its parent: the node before it on its path, -1 for none.

    `scored` lists (node, token, request). Paths are added in the order of their tokens, so that all that
    comes after a node follows it without a gap, up to its `end`.
    """

    token: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    scored: list[tuple[int, int, int]] = field(default_factory=list)
    _children: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, request: int, tokens: list[int], continuation: int) -> None:
        """The path of `tokens`, whose last `continuation` are to be scored; the very last is no input."""
        node = -1
        for index, token in enumerate(tokens):
            if index >= len(tokens) - continuation:
                self.scored.append((node, token, request))
            if index < len(tokens) - 1:
                node = self._child(node, token, index)

    def _child(self, parent: int, token: int, depth: int) -> int:
        node = self._children.setdefault((parent, token), len(self.token))
        if node == len(self.token):
            self.token.append(token)
            self.parent.append(parent)
            self.depth.append(depth)
        return node

    @property
    def branches(self) -> bool:
        return self.depth != list(range(len(self.depth)))

    @property
    def key(self) -> tuple[int, ...]:
        return (*self.token, *self.parent)

    @property
    def end(self) -> list[int]:
        ends = [node + 1 for node in range(len(self.token))]
        for node in reversed(range(len(self.token))):
            if self.parent[node] >= 0:
                ends[self.parent[node]] = max(ends[self.parent[node]], ends[node])
        return ends


def plan(
    questions: Sequence[Sequence[Request]], batch: int, longest: int, trees: bool, device: torch.device
) -> list[Forward]:
    """The batches of `batch` rows that score `questions`, the longest first; requests count through them all.

    A request of more than `longest` + 1 tokens loses the first ones, as in lm-eval. Without `trees`, as for a
    model whose attention has a mask of its own, only requests share a row that differ in their last token.
    """
    rows: dict[tuple[int, ...], _Tree] = {}
    first = 0
    for requests in questions:
        for tree in _trees(requests, first, longest, trees):
            known = rows.setdefault(tree.key, tree)
            if known is not tree:  # questions that differ in their last tokens only
                known.scored += tree.scored
        first += len(requests)
    # As lm-eval orders its requests: the longest first, ties by tokens.
    ordered = sorted(rows.values(), key=lambda tree: (-len(tree.token), tree.token))
    return [_forward(ordered[start : start + batch], device) for start in range(0, len(ordered), batch)]


def _trees(requests: Sequence[Request], first: int, longest: int, trees: bool) -> list[_Tree]:
    """The rows of one question: one tree, or where that does not pay a sequence for each input."""
    together = _Tree()
    alone: dict[tuple[int, ...], _Tree] = {}
    paths = [
        ((context + continuation)[-(longest + 1) :], min(len(continuation), longest), request)
        for request, (_, context, continuation) in enumerate(requests, start=first)
    ]
    for tokens, continuation, request in sorted(paths):
        for tree in (together, alone.setdefault(tuple(tokens[:-1]), _Tree())):
            tree.add(request, tokens, continuation)
    apart = sum(len(tree.token) for tree in alone.values())
    short = len(together.token) <= min(LONGEST_TREE, (1.0 - LEAST_SAVED) * apart)
    return [together] if len(alone) == 1 or (trees and short) else list(alone.values())


def _forward(trees: Sequence[_Tree], device: torch.device) -> Forward:
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(tree.token) for tree in trees], batch_first=True)
    depth = end = None
    if any(tree.branches for tree in trees):
        depth = torch.zeros_like(ids)
        # What is padded attends to itself alone: a mean over nothing is no number.
        end = torch.arange(1, ids.shape[1] + 1).repeat(len(trees), 1)
        for row, tree in enumerate(trees):
            depth[row, : len(tree.depth)] = torch.tensor(tree.depth)
            end[row, : len(tree.token)] = torch.tensor(tree.end)
        depth, end = depth.to(device), end.to(device)
    places: dict[tuple[int, int], int] = {}
    scored = [
        (places.setdefault((row, node), len(places)), token, request)
        for row, tree in enumerate(trees)
        for node, token, request in tree.scored
    ]
    place, token, request = np.array(scored).T
    row, column = torch.tensor(list(places)).T.to(device)
    return Forward(
        ids.to(device),
        depth,
        end,
        row,
        column,
        torch.from_numpy(place.copy()).to(device),
        torch.from_numpy(token.copy()).to(device),
        request,
        sum(len(tree.token) for tree in trees),
    )
