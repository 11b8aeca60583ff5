-- Two users of one project: each sees its own, and may change nothing.
begin;
select plan(12);

set local role service_role;
select lives_ok($made$ select ledgerq.create_jobs('{"actor": "test", "dispatch": false, "jobs": [
  {"id": "00000000-0000-4000-8000-00000000000a", "type": "greet", "queue": "processing", "tenant": "a",
   "owner": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa", "tasks": [{"key": "one"}, {"key": "two"}]},
  {"id": "00000000-0000-4000-8000-00000000000b", "type": "greet", "queue": "processing", "tenant": "b",
   "owner": "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb", "tasks": [{"key": "one"}]},
  {"id": "00000000-0000-4000-8000-00000000000c", "type": "greet", "queue": "processing", "tasks": [{"key": "one"}]}
]}') $made$, 'jobs of two users and one of nobody are created');

set local role authenticated;
set local request.jwt.claims = '{"sub": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa", "role": "authenticated"}';
select results_eq('select id from ledgerq.job', $$ values ('00000000-0000-4000-8000-00000000000a'::uuid) $$, 'the first one sees its job');
select is((select count(*) from ledgerq.task), 2::bigint, 'and its tasks');
select isnt_empty('select from ledgerq.event', 'and what happened to it');
select is_empty(
  $$ select from ledgerq.event where job_id <> '00000000-0000-4000-8000-00000000000a' $$, 'and nothing that happened to another''s'
);
select throws_ok('update ledgerq.job set details = details', '42501', null, 'it changes nothing');
select throws_ok('delete from ledgerq.job', '42501', null, 'removes nothing');
select throws_ok($$ select ledgerq.job_get('{"job": "00000000-0000-4000-8000-00000000000a"}') $$, '42501', null, 'calls nothing');

set local request.jwt.claims = '{"sub": "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb", "role": "authenticated"}';
select results_eq('select id from ledgerq.job', $$ values ('00000000-0000-4000-8000-00000000000b'::uuid) $$, 'the second one sees its own');
select is((select count(*) from ledgerq.task), 1::bigint, 'with its task');

set local request.jwt.claims = '{"role": "authenticated"}';
select is_empty('select from ledgerq.job', 'a user without a name sees nothing, also not what belongs to nobody');

set local role anon;
select throws_ok('select from ledgerq.job', '42501', null, 'and whoever is not logged in is not let in');

reset role;
select * from finish();
rollback;
