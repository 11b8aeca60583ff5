-- For local development (`supabase db reset`): a second queue with other limits, beside `processing`, which the migrations make.
-- Repeatable.
select ledgerq.save_queue('{"queue": "crawling", "depth": 4, "tenant_concurrent_jobs": 2, "timeout_s": 900}');
