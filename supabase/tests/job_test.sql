-- A job's way from creation to its end, and a step that the database refuses.
begin;
select plan(10);

set local role service_role;
create temporary table answer (call text, document jsonb) on commit drop;

insert into answer select 'save_queue', ledgerq.save_queue('{"queue": "of_this_test", "depth": 1}');
insert into answer select 'create_jobs', ledgerq.create_jobs('{"actor": "test", "jobs": [
  {"id": "00000000-0000-4000-8000-000000000001", "type": "greet", "queue": "of_this_test", "tasks": [{"key": "one", "payload": "hello"}]}
]}');
select is(document #>> '{jobs,0,disposition}', 'applied', 'the job is created') from answer where call = 'create_jobs';
select is(jsonb_array_length(document -> 'runs'), 1, 'and a run goes out with it') from answer where call = 'create_jobs';

insert into answer select 'again', ledgerq.create_jobs('{"actor": "test", "jobs": [
  {"id": "00000000-0000-4000-8000-000000000001", "type": "greet", "queue": "of_this_test", "tasks": [{"key": "one", "payload": "hello"}]}
]}');
select is(document #> '{jobs,0}', (select document #> '{jobs,0}' from answer where call = 'create_jobs'), 'asked for again it is the same job')
from answer where call = 'again';

insert into answer
select 'start_run', ledgerq.start_run(jsonb_build_object(
  'run', document #> '{runs,0,run}', 'delivery', '00000000-0000-4000-8000-0000000000d1',
  'worker', 'w', 'execution_id', 'e', 'host', 'h', 'pid', 1, 'window', 10
)) from answer where call = 'create_jobs';
select is(document ->> 'disposition', 'applied', 'the run is started') from answer where call = 'start_run';
select is(document #>> '{tasks,0,payload}', 'hello', 'and hands out the task') from answer where call = 'start_run';

insert into answer
select 'advance_run', ledgerq.advance_run(jsonb_build_object(
  'run', created.document #> '{runs,0,run}', 'delivery', '00000000-0000-4000-8000-0000000000d1', 'step', started.document -> 'step',
  'outcomes', jsonb_build_array(jsonb_build_object('task', started.document #> '{tasks,0,id}', 'kind', 'completed', 'result', 'hello to you')),
  'want', 0, 'yield', false
)) from answer as created, answer as started where created.call = 'create_jobs' and started.call = 'start_run';
select is(document ->> 'disposition', 'applied', 'its outcome is taken') from answer where call = 'advance_run';

select results_eq(
  $$ select status, total, completed from ledgerq.job where id = '00000000-0000-4000-8000-000000000001' $$,
  $$ values ('completed', 1, 1) $$,
  'the job is completed'
);
select is(
  ledgerq.job_get('{"job": "00000000-0000-4000-8000-000000000001"}') ->> 'status', 'completed', 'and says so to whoever asks'
);
select results_eq(
  $$ select kind from ledgerq.event where job_id = '00000000-0000-4000-8000-000000000001' and kind in ('created', 'ended') order by id $$,
  $$ values ('created'), ('ended') $$,
  'its history begins and ends'
);

select throws_ok(
  $$ update ledgerq.job set status = 'in_progress', finished_at = null where id = '00000000-0000-4000-8000-000000000001' $$,
  'LQ009', null, 'what has ended cannot be taken up again but by a retry'
);

reset role;
select * from finish();
rollback;
