"""What a service imports: jobs asked for, looked at and steered."""

from ledgerq.manager.job_manager import JobManager
from ledgerq.manager.reports import CreatedJob, CreatedJobs

__all__ = ["CreatedJob", "CreatedJobs", "JobManager"]
