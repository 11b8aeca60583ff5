# ruff: noqa: E501 - exact text of migrations
"""Which points readers see, and which may go."""

from __future__ import annotations

from typing import Final

from tests.stress.mutations import Edit, Mutation

FENCES = "stress/test_fences.py"
INTERLEAVINGS = "stress/test_interleavings.py"
GARBAGE = "ledger/test_documents_garbage.py"

DOCUMENTS: Final[tuple[Mutation, ...]] = (
    Mutation(
        "flip-of-an-old-revision",
        "only the present revision becomes live",
        (
            Edit("generations", "        when d.revision <> e.revision then 'stale'\n", ""),
            Edit("generations", "        when g.garbage_since is not null then 'stale'\n", ""),
        ),
        f"{INTERLEAVINGS}::test_a_flip_meets_new_content",
        fast=True,
    ),
    Mutation(
        "flip-of-a-deleted-document",
        "a deleted document stays without points",
        (Edit("generations", "when d.id is null or d.deleted_at is not null then 'deleted'", "when d.id is null then 'deleted'"),),
        f"{INTERLEAVINGS}::test_a_flip_meets_a_deletion",
    ),
    Mutation(
        "flip-backwards",
        "the live generation only rises",
        (Edit("generations", " and e.generation > coalesce(d.live_generation, 0)\n", "\n"),),
        f"{INTERLEAVINGS}::test_two_jobs_flip_one_document",
    ),
    Mutation(
        "flip-without-the-document-locks",
        "documents flip under their locks",
        (
            Edit(
                "generations",
                "  perform from ledgerq.document where id = any (v_documents) order by id for no key update;\n  v_verdicts",
                "  v_verdicts",
            ),
        ),
        f"{INTERLEAVINGS}::test_a_flip_meets_new_content",
    ),
    Mutation(
        "begin-without-the-document-locks",
        "generations are allotted under the documents' locks",
        (Edit("generations", "  perform from ledgerq.document where id = any (v_ids) order by id for no key update;\n", ""),),
        f"{INTERLEAVINGS}::test_documents_are_locked_in_the_order_of_their_ids",
    ),
    Mutation(
        "usage-counted-twice",
        "a provider's call counts once",
        (
            Edit(
                "generations",
                "  order by (u ->> 'id')::uuid\n  on conflict (id) do nothing",
                "  order by (u ->> 'id')::uuid\n  on conflict (id) do update set tokens = ledgerq.usage.tokens + excluded.tokens",
            ),
        ),
        f"{FENCES}::test_usage_counts_once",
    ),
    Mutation(
        "points-removed-under-a-writer",
        "points that a run may still write are not removed",
        (
            Edit(
                "garbage",
                "        when ledgerq._still_written(g.document_id, g.garbage_since) then p_now + ledgerq._longest_lease() / 2\n",
                "",
            ),
        ),
        GARBAGE,
    ),
    Mutation(
        "points-removed-under-a-reader",
        "points that a reader may still look at are not removed",
        (
            Edit(
                "garbage",
                "        when g.live_since is not null and g.garbage_since > p_now - p_grace then g.garbage_since + p_grace\n",
                "",
            ),
        ),
        GARBAGE,
    ),
    Mutation(
        "points-gone-at-first-count",
        "points are counted gone twice",
        (Edit("garbage", "      when g.empty_seen_at is null then 'seen'\n", "      when g.empty_seen_at is null then 'gone'\n"),),
        GARBAGE,
    ),
    Mutation(
        "points-gone-at-second-glance",
        "a lease lies between the two counts",
        (Edit("garbage", "when g.empty_seen_at <= p_now - ledgerq._longest_lease() then 'gone'", "when true then 'gone'"),),
        GARBAGE,
    ),
    Mutation(
        "builds-given-up-under-their-tasks",
        "a build that a task will go on with is not given up",
        (
            Edit(
                "garbage",
                "begun_at <= p_begun_before\n    and not exists (select from ledgerq.task as t where t.document_id = g.document_id and t.status in ('pending', 'queued'))",
                "begun_at <= p_begun_before",
            ),
        ),
        GARBAGE,
    ),
)
