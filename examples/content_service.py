"""A content service: what a crawler or an upload brings is saved, and becomes searchable in the background.

export DATABASE_URL=postgresql://… REDIS_URL=redis://… QDRANT_URL=http://…
ledgerq migrate
ledgerq worker &
python examples/content_service.py
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID, uuid4

from ledgerq import DocumentRequest, JobManager, JobStatus


class ContentService:
    def __init__(self, jobs: JobManager) -> None:
        self.jobs = jobs

    def pages_arrived(self, source: UUID, pages: Mapping[str, str], *, tenant: str = "") -> UUID:
        """Save the pages (address to Markdown) and answer with the job that makes them searchable."""
        self.jobs.save_source(source, kind="crawl", tenant=tenant)
        documents = [DocumentRequest.inline(uri, text, content_type="text/markdown") for uri, text in pages.items()]
        saved = self.jobs.save_documents(documents, source=source, tenant=tenant)
        return self.jobs.create_processing_job(source, saved).id

    def how_is(self, job: UUID) -> tuple[JobStatus, str]:
        return self.jobs.get_job_status(job), self.jobs.explain_job(job).sentence


if __name__ == "__main__":
    with JobManager.from_env() as manager:
        service = ContentService(manager)
        job = service.pages_arrived(uuid4(), {"https://example.org/tides": "# Tides\n\nThe moon pulls the sea, twice a day."})
        print(*service.how_is(job), sep=": ")
