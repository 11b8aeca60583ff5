"""What a service imports: jobs asked for, looked at and steered."""

from ledgerq.manager.async_manager import AsyncJobManager
from ledgerq.manager.job_manager import JobManager
from ledgerq.manager.reports import CreatedJob, CreatedJobs

__all__ = ["AsyncJobManager", "CreatedJob", "CreatedJobs", "JobManager"]
