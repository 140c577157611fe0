-- What: who may do what in schema holdfast, tried for each role on rows that are made here and rolled back.
-- Why: for `supabase test db`. Generated from tests/rls/matrix.ts by `npm run rls -- --write`: change that.
-- Who: whoever may create pgTAP and write auth.users, as `postgres` of a local project may.

begin;

create extension if not exists pgtap with schema extensions;

set local search_path = public, extensions;

select plan(508);

-- Three people, and rows that are theirs. What is there already stays, and is not looked at.
insert into auth.users (id, aud, role)
values
    ('00000000-0000-4000-8000-00000000000a', 'authenticated', 'authenticated'),
    ('00000000-0000-4000-8000-00000000000b', 'authenticated', 'authenticated'),
    ('00000000-0000-4000-8000-00000000000c', 'authenticated', 'authenticated')
on conflict do nothing;

insert into holdfast.transactions (id, status, caller_role, caller_id, isolation, attempt, operations, tables, started_at, deadline_at, ended_at)
values
    ('00000000-0000-4000-8000-0000000000a1', 'committed', 'authenticated', '00000000-0000-4000-8000-00000000000a', 'read committed', 1, 1, '{public.orders}', '2026-01-01', '2026-01-02', '2026-01-01')
on conflict do nothing;

insert into holdfast.compensations (id, transaction_id, position, function_name, name, args, due_at, caller_role, caller_id)
values
    ('00000000-0000-4000-8000-0000000000a1', '00000000-0000-4000-8000-0000000000a1', 1, 'orders', 'refund', '{}', '2126-01-01', 'authenticated', '00000000-0000-4000-8000-00000000000a')
on conflict do nothing;

insert into holdfast.idempotency_keys (id, fingerprint, expires_at, route, caller_id, status, headers, body)
values
    ('\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '2126-01-01', 'POST /orders', '00000000-0000-4000-8000-00000000000a', 201, '{}', '{"of":"the owner"}')
on conflict do nothing;

insert into holdfast.circuit_breakers (name)
values
    ('payments'),
    ('uncounted')
on conflict do nothing;

insert into holdfast.circuit_breaker_counts (name, epoch, rules)
values
    ('payments', 1, '{"windowMs": 30000}')
on conflict do nothing;

insert into holdfast.circuit_breaker_events (name, epoch, from_state, to_state, reason, reported_by)
values
    ('payments', 1, 'open', 'closed', 'a probe succeeded', 'orders')
on conflict do nothing;

insert into holdfast.rate_limits (key, forget_at, state)
values
    ('orders|60/min|user:00000000-0000-4000-8000-00000000000a', 1, '{1}')
on conflict do nothing;

insert into holdfast.cache_entries (cache, key, version, value, fence, fresh_until, expires_at)
values
    ('users', '00000000-0000-4000-8000-00000000000a', '1', '{"of":"the owner"}', 1, '2126-01-01', '2126-01-01')
on conflict do nothing;

-- The names by which the assertions call these rows.
create temporary table fixture (
    position integer generated always as identity,
    relation text not null,
    key text not null,
    name text not null
) on commit drop;

insert into fixture (relation, key, name)
values
    ('holdfast.transactions', '00000000-0000-4000-8000-0000000000a1', 'row'),
    ('holdfast.transactions', '00000000-0000-4000-8000-0000000000ff', 'fresh'),
    ('holdfast.compensations', '00000000-0000-4000-8000-0000000000a1', 'row'),
    ('holdfast.compensations', '00000000-0000-4000-8000-0000000000ff', 'fresh'),
    ('holdfast.idempotency_keys', '\xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'row'),
    ('holdfast.idempotency_keys', '\xcccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', 'fresh'),
    ('holdfast.circuit_breakers', 'payments', 'row'),
    ('holdfast.circuit_breakers', 'uncounted', 'row 2'),
    ('holdfast.circuit_breakers', 'fresh', 'fresh'),
    ('holdfast.circuit_breaker_counts', 'payments', 'row'),
    ('holdfast.circuit_breaker_counts', 'uncounted', 'fresh'),
    ('holdfast.circuit_breaker_events', 'orders', 'row'),
    ('holdfast.circuit_breaker_events', 'fresh', 'fresh'),
    ('holdfast.rate_limits', 'orders|60/min|user:00000000-0000-4000-8000-00000000000a', 'row'),
    ('holdfast.rate_limits', 'fresh', 'fresh'),
    ('holdfast.cache_entries', 'users 00000000-0000-4000-8000-00000000000a', 'row'),
    ('holdfast.cache_entries', 'users fresh', 'fresh');

-- What is tried on each table. Nothing limits a statement but the rights of whoever runs it.
create temporary table attempts (
    relation text primary key,
    found text not null,
    inserting text not null,
    updating text not null,
    updated text not null,
    before_delete text
) on commit drop;

insert into attempts (relation, found, inserting, updating, updated, before_delete)
values
    (
        'holdfast.transactions',
        $q$ select array_agg(id::text) from holdfast.transactions $q$,
        $q$ insert into holdfast.transactions (id, status, caller_role, caller_id, isolation, attempt, operations, tables, started_at, deadline_at, ended_at) values ('00000000-0000-4000-8000-0000000000ff', 'committed', 'authenticated', '00000000-0000-4000-8000-00000000000a', 'read committed', 1, 1, '{public.orders}', '2026-01-01', '2026-01-02', '2026-01-01') $q$,
        $q$ update holdfast.transactions set operations = 9 $q$,
        $q$ select array_agg(id::text) from holdfast.transactions where operations is not distinct from 9 $q$,
        null
    ),
    (
        'holdfast.compensations',
        $q$ select array_agg(id::text) from holdfast.compensations $q$,
        $q$ insert into holdfast.compensations (id, transaction_id, position, function_name, name, args, due_at, caller_role, caller_id) values ('00000000-0000-4000-8000-0000000000ff', '00000000-0000-4000-8000-0000000000a1', 1, 'orders', 'refund', '{}', '2126-01-01', 'authenticated', '00000000-0000-4000-8000-00000000000a') $q$,
        $q$ update holdfast.compensations set attempts = 0 $q$,
        $q$ select array_agg(id::text) from holdfast.compensations where attempts is not distinct from 0 $q$,
        null
    ),
    (
        'holdfast.idempotency_keys',
        $q$ select array_agg(id::text) from holdfast.idempotency_keys $q$,
        $q$ insert into holdfast.idempotency_keys (id, fingerprint, expires_at, route, caller_id, status, headers, body) values ('\xcccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', '\xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '2126-01-01', 'POST /orders', '00000000-0000-4000-8000-00000000000a', 201, '{}', '{"of":"the owner"}') $q$,
        $q$ update holdfast.idempotency_keys set request_id = 'changed' $q$,
        $q$ select array_agg(id::text) from holdfast.idempotency_keys where request_id is not distinct from 'changed' $q$,
        null
    ),
    (
        'holdfast.circuit_breakers',
        $q$ select array_agg(name::text) from holdfast.circuit_breakers $q$,
        $q$ insert into holdfast.circuit_breakers (name) values ('fresh') $q$,
        $q$ update holdfast.circuit_breakers set epoch = 9 $q$,
        $q$ select array_agg(name::text) from holdfast.circuit_breakers where epoch is not distinct from 9 $q$,
        null
    ),
    (
        'holdfast.circuit_breaker_counts',
        $q$ select array_agg(name::text) from holdfast.circuit_breaker_counts $q$,
        $q$ insert into holdfast.circuit_breaker_counts (name, epoch, rules) values ('uncounted', 1, '{"windowMs": 30000}') $q$,
        $q$ update holdfast.circuit_breaker_counts set epoch = 9 $q$,
        $q$ select array_agg(name::text) from holdfast.circuit_breaker_counts where epoch is not distinct from 9 $q$,
        null
    ),
    (
        'holdfast.circuit_breaker_events',
        $q$ select array_agg(reported_by::text) from holdfast.circuit_breaker_events $q$,
        $q$ insert into holdfast.circuit_breaker_events (name, epoch, from_state, to_state, reason, reported_by) values ('payments', 1, 'open', 'closed', 'a probe succeeded', 'fresh') $q$,
        $q$ update holdfast.circuit_breaker_events set reason = 'changed' $q$,
        $q$ select array_agg(reported_by::text) from holdfast.circuit_breaker_events where reason is not distinct from 'changed' $q$,
        null
    ),
    (
        'holdfast.rate_limits',
        $q$ select array_agg(key::text) from holdfast.rate_limits $q$,
        $q$ insert into holdfast.rate_limits (key, forget_at, state) values ('fresh', 1, '{1}') $q$,
        $q$ update holdfast.rate_limits set forget_at = 2 $q$,
        $q$ select array_agg(key::text) from holdfast.rate_limits where forget_at is not distinct from 2 $q$,
        null
    ),
    (
        'holdfast.cache_entries',
        $q$ select array_agg(cache::text || ' ' || key::text) from holdfast.cache_entries $q$,
        $q$ insert into holdfast.cache_entries (cache, key, version, value, fence, fresh_until, expires_at) values ('users', 'fresh', '1', '{"of":"the owner"}', 1, '2126-01-01', '2126-01-01') $q$,
        $q$ update holdfast.cache_entries set fence = 9 $q$,
        $q$ select array_agg(cache::text || ' ' || key::text) from holdfast.cache_entries where fence is not distinct from 9 $q$,
        null
    );

-- Takes on the role and the claims of somebody, until the block around it is taken back.
create function pg_temp.become(p_who text)
returns void
language plpgsql
as $$
declare
    v_role text := case when p_who in ('anon', 'service_role') then p_who else 'authenticated' end;
    v_claims jsonb := case p_who
        when 'owner' then '{"sub": "00000000-0000-4000-8000-00000000000a"}'
        when 'other' then '{"sub": "00000000-0000-4000-8000-00000000000b"}'
        when 'admin' then '{"sub": "00000000-0000-4000-8000-00000000000c", "app_metadata": {"role": "admin"}}'
        else '{}'
    end::jsonb;
begin
    perform set_config('request.jwt.claims', (v_claims || jsonb_build_object('role', v_role))::text, true);
    perform set_config('role', v_role, true);
end;
$$;

-- Runs a statement as somebody, and takes back what it did.
create function pg_temp.run_as(p_who text, p_statement text)
returns void
language plpgsql
as $$
begin
    perform pg_temp.become(p_who);
    execute p_statement;
    raise exception using errcode = 'UNDO1';
exception
    when sqlstate 'UNDO1' then null;
end;
$$;

-- Tries a command as somebody and takes it back: the names of the rows that are seen, or have changed.
create function pg_temp.reach(p_who text, p_command text, p_relation text, p_inserting text default null)
returns text[]
language plpgsql
as $$
declare
    v_self text := current_user;
    v_attempts attempts;
    v_keys text[];
begin
    select * into strict v_attempts from pg_temp.attempts where relation = p_relation;
    begin
        if p_command = 'delete' and v_attempts.before_delete is not null then
            execute v_attempts.before_delete;
        end if;
        perform pg_temp.become(p_who);
        case p_command
            when 'select' then execute v_attempts.found into v_keys;
            when 'insert' then execute coalesce(p_inserting, v_attempts.inserting);
            when 'update' then execute v_attempts.updating;
            when 'delete' then execute 'delete from ' || p_relation;
        end case;
        -- What a write did is asked with every right: who may write need not be able to read.
        perform set_config('role', v_self, true);
        case p_command
            when 'select' then null;
            when 'update' then execute v_attempts.updated into v_keys;
            else execute v_attempts.found into v_keys;
        end case;
        raise exception using errcode = 'UNDO1';
    exception
        when sqlstate 'UNDO1' then null;
    end;
    return array(
        select f.name from pg_temp.fixture as f
        where f.relation = p_relation
        and (f.name = 'fresh') = (p_command = 'insert')
        and (f.key = any (coalesce(v_keys, '{}'))) = (p_command <> 'delete')
        order by f.position
    );
end;
$$;

select is_empty(
    $q$ select c.oid::regclass from pg_class as c
    where c.relnamespace = 'holdfast'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity $q$,
    'row level security is on for every table of schema holdfast'
);

select is_empty(
    $q$ select c.relname from pg_class as c
    where c.relnamespace = 'holdfast'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
    and not c.relispartition
    and 'holdfast.' || c.relname <> all (array[
        'holdfast.transactions',
        'holdfast.compensations',
        'holdfast.idempotency_keys',
        'holdfast.circuit_breakers',
        'holdfast.circuit_breaker_counts',
        'holdfast.circuit_breaker_events',
        'holdfast.circuit_breaker_status',
        'holdfast.rate_limits',
        'holdfast.rate_limit_status',
        'holdfast.cache_entries'
    ]) $q$,
    'the declaration names every table and view of schema holdfast'
);

select is_empty(
    $q$ select p.oid::regprocedure from pg_proc as p
    where p.pronamespace = 'holdfast'::regnamespace
    and 'holdfast.' || regexp_replace(p.oid::regprocedure::text, '^holdfast\.', '') <> all (array[
        'holdfast.is_admin()',
        'holdfast.stamp_times()',
        'holdfast.transaction_retention()',
        'holdfast.transaction_lock_key(uuid)',
        'holdfast.write_transaction(uuid,jsonb,text,bigint,text[],text)',
        'holdfast.commit_transaction(uuid,jsonb,bigint,text[])',
        'holdfast.transaction_status_of(text)',
        'holdfast.resolve_transaction(uuid,jsonb,text,boolean)',
        'holdfast.sweep_transactions()',
        'holdfast.purge_transactions(bigint)',
        'holdfast.compensation_grace()',
        'holdfast.bar_transaction(uuid)',
        'holdfast.record_compensation(uuid,bigint,text,text,jsonb,text,text,text,text)',
        'holdfast.settle_compensations(uuid,uuid[])',
        'holdfast.withdraw_compensation(uuid,uuid)',
        'holdfast.compensation_max_attempts()',
        'holdfast.compensation_backoff(bigint)',
        'holdfast.compensation_retention()',
        'holdfast.claim_compensation(text,text[],bigint,uuid,boolean)',
        'holdfast.finish_compensation(uuid,bigint,text,boolean)',
        'holdfast.retry_compensation(uuid)',
        'holdfast.ring_compensations()',
        'holdfast.purge_compensations(bigint)',
        'holdfast.find_idempotent_answers(bytea[],bytea[])',
        'holdfast.claim_idempotency_key(bytea,bytea)',
        'holdfast.require_answer_size(text,bigint)',
        'holdfast.store_idempotent_answer(bytea,bytea,text,text,text,smallint,text,text,bigint,bigint)',
        'holdfast.purge_idempotency_keys(bigint)',
        'holdfast.lease_idempotency_key(bytea,bytea,text,text,text,bigint,bigint)',
        'holdfast.complete_idempotency_key(bytea,bigint,smallint,text,text,bigint)',
        'holdfast.require_completed_idempotency_key(bytea,bigint,smallint,text,text,bigint,bigint)',
        'holdfast.release_idempotency_key(bytea,bigint)',
        'holdfast.change_circuit_breaker(text,text,text,double precision,text,bigint,bigint)',
        'holdfast.force_circuit_breaker(text,text,text,jsonb)',
        'holdfast.default_circuit_breaker_rules()',
        'holdfast.circuit_breaker_retention()',
        'holdfast.purge_circuit_breaker_events(bigint)',
        'holdfast.require_circuit_breaker_reports(jsonb)',
        'holdfast.count_circuit_breaker_calls(jsonb)',
        'holdfast.apply_circuit_breaker_report(jsonb)',
        'holdfast.probe_wait_ms(holdfast.circuit_breakers,double precision)',
        'holdfast.exchange_circuit_breakers(jsonb)',
        'holdfast.block_rate_limit(text,bigint)',
        'holdfast.reset_rate_limit(text)',
        'holdfast.purge_rate_limits(bigint)',
        'holdfast.decide_rate_limit(text,bigint[],bigint,bigint)',
        'holdfast.decide_rate_limits(text[],bigint[])',
        'holdfast.decide_gcra_limit(text,bigint,bigint,bigint,bigint,bigint)',
        'holdfast.decide_gcra_limits(text[],bigint[],bigint,bigint,bigint,bigint)',
        'holdfast.enter_guards(bigint[],jsonb,jsonb)',
        'holdfast.lease_cache_entry(text,text,text,text[],double precision,double precision)',
        'holdfast.read_cache_entries(jsonb)',
        'holdfast.write_cache_entry(text,text,text,text[],bigint,text,double precision,double precision)',
        'holdfast.release_cache_entry(text,text,bigint)',
        'holdfast.invalidate_cache(text,text[],text[])',
        'holdfast.purge_cache_entries(bigint)'
    ]) $q$,
    'the declaration names every function of schema holdfast'
);

-- holdfast.transactions: What became of each transaction.
select throws_ok($q$ select pg_temp.reach('anon', 'select', 'holdfast.transactions') $q$, '42501', null, 'anon may not read holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('owner', 'select', 'holdfast.transactions') $q$, '42501', null, 'owner may not read holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('other', 'select', 'holdfast.transactions') $q$, '42501', null, 'other may not read holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('admin', 'select', 'holdfast.transactions') $q$, '42501', null, 'admin may not read holdfast.transactions');
select is(pg_temp.reach('service_role', 'select', 'holdfast.transactions'), array['row'], 'service_role reads every row of holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('anon', 'insert', 'holdfast.transactions') $q$, '42501', null, 'anon may not insert into holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('owner', 'insert', 'holdfast.transactions') $q$, '42501', null, 'owner may not insert into holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('other', 'insert', 'holdfast.transactions') $q$, '42501', null, 'other may not insert into holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('admin', 'insert', 'holdfast.transactions') $q$, '42501', null, 'admin may not insert into holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('service_role', 'insert', 'holdfast.transactions') $q$, '42501', null, 'service_role may not insert into holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('anon', 'update', 'holdfast.transactions') $q$, '42501', null, 'anon may not update holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('owner', 'update', 'holdfast.transactions') $q$, '42501', null, 'owner may not update holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('other', 'update', 'holdfast.transactions') $q$, '42501', null, 'other may not update holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('admin', 'update', 'holdfast.transactions') $q$, '42501', null, 'admin may not update holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('service_role', 'update', 'holdfast.transactions') $q$, '42501', null, 'service_role may not update holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('anon', 'delete', 'holdfast.transactions') $q$, '42501', null, 'anon may not delete from holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('owner', 'delete', 'holdfast.transactions') $q$, '42501', null, 'owner may not delete from holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('other', 'delete', 'holdfast.transactions') $q$, '42501', null, 'other may not delete from holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('admin', 'delete', 'holdfast.transactions') $q$, '42501', null, 'admin may not delete from holdfast.transactions');
select throws_ok($q$ select pg_temp.reach('service_role', 'delete', 'holdfast.transactions') $q$, '42501', null, 'service_role may not delete from holdfast.transactions');

-- holdfast.compensations: What has to be undone, with its input.
select throws_ok($q$ select pg_temp.reach('anon', 'select', 'holdfast.compensations') $q$, '42501', null, 'anon may not read holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('owner', 'select', 'holdfast.compensations') $q$, '42501', null, 'owner may not read holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('other', 'select', 'holdfast.compensations') $q$, '42501', null, 'other may not read holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('admin', 'select', 'holdfast.compensations') $q$, '42501', null, 'admin may not read holdfast.compensations');
select is(pg_temp.reach('service_role', 'select', 'holdfast.compensations'), array['row'], 'service_role reads every row of holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('anon', 'insert', 'holdfast.compensations') $q$, '42501', null, 'anon may not insert into holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('owner', 'insert', 'holdfast.compensations') $q$, '42501', null, 'owner may not insert into holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('other', 'insert', 'holdfast.compensations') $q$, '42501', null, 'other may not insert into holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('admin', 'insert', 'holdfast.compensations') $q$, '42501', null, 'admin may not insert into holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('service_role', 'insert', 'holdfast.compensations') $q$, '42501', null, 'service_role may not insert into holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('anon', 'update', 'holdfast.compensations') $q$, '42501', null, 'anon may not update holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('owner', 'update', 'holdfast.compensations') $q$, '42501', null, 'owner may not update holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('other', 'update', 'holdfast.compensations') $q$, '42501', null, 'other may not update holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('admin', 'update', 'holdfast.compensations') $q$, '42501', null, 'admin may not update holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('service_role', 'update', 'holdfast.compensations') $q$, '42501', null, 'service_role may not update holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('anon', 'delete', 'holdfast.compensations') $q$, '42501', null, 'anon may not delete from holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('owner', 'delete', 'holdfast.compensations') $q$, '42501', null, 'owner may not delete from holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('other', 'delete', 'holdfast.compensations') $q$, '42501', null, 'other may not delete from holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('admin', 'delete', 'holdfast.compensations') $q$, '42501', null, 'admin may not delete from holdfast.compensations');
select throws_ok($q$ select pg_temp.reach('service_role', 'delete', 'holdfast.compensations') $q$, '42501', null, 'service_role may not delete from holdfast.compensations');

-- holdfast.idempotency_keys: Requests that were answered, and their answers.
select throws_ok($q$ select pg_temp.reach('anon', 'select', 'holdfast.idempotency_keys') $q$, '42501', null, 'anon may not read holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('owner', 'select', 'holdfast.idempotency_keys') $q$, '42501', null, 'owner may not read holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('other', 'select', 'holdfast.idempotency_keys') $q$, '42501', null, 'other may not read holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('admin', 'select', 'holdfast.idempotency_keys') $q$, '42501', null, 'admin may not read holdfast.idempotency_keys');
select is(pg_temp.reach('service_role', 'select', 'holdfast.idempotency_keys'), array['row'], 'service_role reads every row of holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('anon', 'insert', 'holdfast.idempotency_keys') $q$, '42501', null, 'anon may not insert into holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('owner', 'insert', 'holdfast.idempotency_keys') $q$, '42501', null, 'owner may not insert into holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('other', 'insert', 'holdfast.idempotency_keys') $q$, '42501', null, 'other may not insert into holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('admin', 'insert', 'holdfast.idempotency_keys') $q$, '42501', null, 'admin may not insert into holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('service_role', 'insert', 'holdfast.idempotency_keys') $q$, '42501', null, 'service_role may not insert into holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('anon', 'update', 'holdfast.idempotency_keys') $q$, '42501', null, 'anon may not update holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('owner', 'update', 'holdfast.idempotency_keys') $q$, '42501', null, 'owner may not update holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('other', 'update', 'holdfast.idempotency_keys') $q$, '42501', null, 'other may not update holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('admin', 'update', 'holdfast.idempotency_keys') $q$, '42501', null, 'admin may not update holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('service_role', 'update', 'holdfast.idempotency_keys') $q$, '42501', null, 'service_role may not update holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('anon', 'delete', 'holdfast.idempotency_keys') $q$, '42501', null, 'anon may not delete from holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('owner', 'delete', 'holdfast.idempotency_keys') $q$, '42501', null, 'owner may not delete from holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('other', 'delete', 'holdfast.idempotency_keys') $q$, '42501', null, 'other may not delete from holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('admin', 'delete', 'holdfast.idempotency_keys') $q$, '42501', null, 'admin may not delete from holdfast.idempotency_keys');
select throws_ok($q$ select pg_temp.reach('service_role', 'delete', 'holdfast.idempotency_keys') $q$, '42501', null, 'service_role may not delete from holdfast.idempotency_keys');

-- holdfast.circuit_breakers: The state that all isolates share.
select throws_ok($q$ select pg_temp.reach('anon', 'select', 'holdfast.circuit_breakers') $q$, '42501', null, 'anon may not read holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('owner', 'select', 'holdfast.circuit_breakers') $q$, '42501', null, 'owner may not read holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('other', 'select', 'holdfast.circuit_breakers') $q$, '42501', null, 'other may not read holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('admin', 'select', 'holdfast.circuit_breakers') $q$, '42501', null, 'admin may not read holdfast.circuit_breakers');
select is(pg_temp.reach('service_role', 'select', 'holdfast.circuit_breakers'), array['row', 'row 2'], 'service_role reads every row of holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('anon', 'insert', 'holdfast.circuit_breakers') $q$, '42501', null, 'anon may not insert into holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('owner', 'insert', 'holdfast.circuit_breakers') $q$, '42501', null, 'owner may not insert into holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('other', 'insert', 'holdfast.circuit_breakers') $q$, '42501', null, 'other may not insert into holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('admin', 'insert', 'holdfast.circuit_breakers') $q$, '42501', null, 'admin may not insert into holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('service_role', 'insert', 'holdfast.circuit_breakers') $q$, '42501', null, 'service_role may not insert into holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('anon', 'update', 'holdfast.circuit_breakers') $q$, '42501', null, 'anon may not update holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('owner', 'update', 'holdfast.circuit_breakers') $q$, '42501', null, 'owner may not update holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('other', 'update', 'holdfast.circuit_breakers') $q$, '42501', null, 'other may not update holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('admin', 'update', 'holdfast.circuit_breakers') $q$, '42501', null, 'admin may not update holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('service_role', 'update', 'holdfast.circuit_breakers') $q$, '42501', null, 'service_role may not update holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('anon', 'delete', 'holdfast.circuit_breakers') $q$, '42501', null, 'anon may not delete from holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('owner', 'delete', 'holdfast.circuit_breakers') $q$, '42501', null, 'owner may not delete from holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('other', 'delete', 'holdfast.circuit_breakers') $q$, '42501', null, 'other may not delete from holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('admin', 'delete', 'holdfast.circuit_breakers') $q$, '42501', null, 'admin may not delete from holdfast.circuit_breakers');
select throws_ok($q$ select pg_temp.reach('service_role', 'delete', 'holdfast.circuit_breakers') $q$, '42501', null, 'service_role may not delete from holdfast.circuit_breakers');

-- holdfast.circuit_breaker_counts: Calls counted for each breaker.
select throws_ok($q$ select pg_temp.reach('anon', 'select', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'anon may not read holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('owner', 'select', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'owner may not read holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('other', 'select', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'other may not read holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('admin', 'select', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'admin may not read holdfast.circuit_breaker_counts');
select is(pg_temp.reach('service_role', 'select', 'holdfast.circuit_breaker_counts'), array['row'], 'service_role reads every row of holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('anon', 'insert', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'anon may not insert into holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('owner', 'insert', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'owner may not insert into holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('other', 'insert', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'other may not insert into holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('admin', 'insert', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'admin may not insert into holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('service_role', 'insert', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'service_role may not insert into holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('anon', 'update', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'anon may not update holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('owner', 'update', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'owner may not update holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('other', 'update', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'other may not update holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('admin', 'update', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'admin may not update holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('service_role', 'update', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'service_role may not update holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('anon', 'delete', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'anon may not delete from holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('owner', 'delete', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'owner may not delete from holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('other', 'delete', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'other may not delete from holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('admin', 'delete', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'admin may not delete from holdfast.circuit_breaker_counts');
select throws_ok($q$ select pg_temp.reach('service_role', 'delete', 'holdfast.circuit_breaker_counts') $q$, '42501', null, 'service_role may not delete from holdfast.circuit_breaker_counts');

-- holdfast.circuit_breaker_events: Each change of state, and who forced it.
select throws_ok($q$ select pg_temp.reach('anon', 'select', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'anon may not read holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('owner', 'select', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'owner may not read holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('other', 'select', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'other may not read holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('admin', 'select', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'admin may not read holdfast.circuit_breaker_events');
select is(pg_temp.reach('service_role', 'select', 'holdfast.circuit_breaker_events'), array['row'], 'service_role reads every row of holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('anon', 'insert', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'anon may not insert into holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('owner', 'insert', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'owner may not insert into holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('other', 'insert', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'other may not insert into holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('admin', 'insert', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'admin may not insert into holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('service_role', 'insert', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'service_role may not insert into holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('anon', 'update', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'anon may not update holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('owner', 'update', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'owner may not update holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('other', 'update', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'other may not update holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('admin', 'update', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'admin may not update holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('service_role', 'update', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'service_role may not update holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('anon', 'delete', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'anon may not delete from holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('owner', 'delete', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'owner may not delete from holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('other', 'delete', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'other may not delete from holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('admin', 'delete', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'admin may not delete from holdfast.circuit_breaker_events');
select throws_ok($q$ select pg_temp.reach('service_role', 'delete', 'holdfast.circuit_breaker_events') $q$, '42501', null, 'service_role may not delete from holdfast.circuit_breaker_events');

-- holdfast.circuit_breaker_status: View: the breakers in plain words.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from holdfast.circuit_breaker_status') $q$, '42501', null, 'anon may not read holdfast.circuit_breaker_status');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from holdfast.circuit_breaker_status') $q$, '42501', null, 'owner may not read holdfast.circuit_breaker_status');
select throws_ok($q$ select pg_temp.run_as('other', 'select from holdfast.circuit_breaker_status') $q$, '42501', null, 'other may not read holdfast.circuit_breaker_status');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from holdfast.circuit_breaker_status') $q$, '42501', null, 'admin may not read holdfast.circuit_breaker_status');
select lives_ok($q$ select pg_temp.run_as('service_role', 'select from holdfast.circuit_breaker_status') $q$, 'service_role reads every row of holdfast.circuit_breaker_status');
select ok(not has_table_privilege('anon', 'holdfast.circuit_breaker_status', 'insert'), 'anon may not insert into holdfast.circuit_breaker_status');
select ok(not has_table_privilege('authenticated', 'holdfast.circuit_breaker_status', 'insert'), 'owner may not insert into holdfast.circuit_breaker_status');
select ok(not has_table_privilege('authenticated', 'holdfast.circuit_breaker_status', 'insert'), 'other may not insert into holdfast.circuit_breaker_status');
select ok(not has_table_privilege('authenticated', 'holdfast.circuit_breaker_status', 'insert'), 'admin may not insert into holdfast.circuit_breaker_status');
select ok(not has_table_privilege('service_role', 'holdfast.circuit_breaker_status', 'insert'), 'service_role may not insert into holdfast.circuit_breaker_status');
select ok(not has_table_privilege('anon', 'holdfast.circuit_breaker_status', 'update'), 'anon may not update holdfast.circuit_breaker_status');
select ok(not has_table_privilege('authenticated', 'holdfast.circuit_breaker_status', 'update'), 'owner may not update holdfast.circuit_breaker_status');
select ok(not has_table_privilege('authenticated', 'holdfast.circuit_breaker_status', 'update'), 'other may not update holdfast.circuit_breaker_status');
select ok(not has_table_privilege('authenticated', 'holdfast.circuit_breaker_status', 'update'), 'admin may not update holdfast.circuit_breaker_status');
select ok(not has_table_privilege('service_role', 'holdfast.circuit_breaker_status', 'update'), 'service_role may not update holdfast.circuit_breaker_status');
select ok(not has_table_privilege('anon', 'holdfast.circuit_breaker_status', 'delete'), 'anon may not delete from holdfast.circuit_breaker_status');
select ok(not has_table_privilege('authenticated', 'holdfast.circuit_breaker_status', 'delete'), 'owner may not delete from holdfast.circuit_breaker_status');
select ok(not has_table_privilege('authenticated', 'holdfast.circuit_breaker_status', 'delete'), 'other may not delete from holdfast.circuit_breaker_status');
select ok(not has_table_privilege('authenticated', 'holdfast.circuit_breaker_status', 'delete'), 'admin may not delete from holdfast.circuit_breaker_status');
select ok(not has_table_privilege('service_role', 'holdfast.circuit_breaker_status', 'delete'), 'service_role may not delete from holdfast.circuit_breaker_status');

-- holdfast.rate_limits: What each key has used up.
select throws_ok($q$ select pg_temp.reach('anon', 'select', 'holdfast.rate_limits') $q$, '42501', null, 'anon may not read holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('owner', 'select', 'holdfast.rate_limits') $q$, '42501', null, 'owner may not read holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('other', 'select', 'holdfast.rate_limits') $q$, '42501', null, 'other may not read holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('admin', 'select', 'holdfast.rate_limits') $q$, '42501', null, 'admin may not read holdfast.rate_limits');
select is(pg_temp.reach('service_role', 'select', 'holdfast.rate_limits'), array['row'], 'service_role reads every row of holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('anon', 'insert', 'holdfast.rate_limits') $q$, '42501', null, 'anon may not insert into holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('owner', 'insert', 'holdfast.rate_limits') $q$, '42501', null, 'owner may not insert into holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('other', 'insert', 'holdfast.rate_limits') $q$, '42501', null, 'other may not insert into holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('admin', 'insert', 'holdfast.rate_limits') $q$, '42501', null, 'admin may not insert into holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('service_role', 'insert', 'holdfast.rate_limits') $q$, '42501', null, 'service_role may not insert into holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('anon', 'update', 'holdfast.rate_limits') $q$, '42501', null, 'anon may not update holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('owner', 'update', 'holdfast.rate_limits') $q$, '42501', null, 'owner may not update holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('other', 'update', 'holdfast.rate_limits') $q$, '42501', null, 'other may not update holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('admin', 'update', 'holdfast.rate_limits') $q$, '42501', null, 'admin may not update holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('service_role', 'update', 'holdfast.rate_limits') $q$, '42501', null, 'service_role may not update holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('anon', 'delete', 'holdfast.rate_limits') $q$, '42501', null, 'anon may not delete from holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('owner', 'delete', 'holdfast.rate_limits') $q$, '42501', null, 'owner may not delete from holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('other', 'delete', 'holdfast.rate_limits') $q$, '42501', null, 'other may not delete from holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('admin', 'delete', 'holdfast.rate_limits') $q$, '42501', null, 'admin may not delete from holdfast.rate_limits');
select throws_ok($q$ select pg_temp.reach('service_role', 'delete', 'holdfast.rate_limits') $q$, '42501', null, 'service_role may not delete from holdfast.rate_limits');

-- holdfast.rate_limit_status: View: the limits in plain words.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from holdfast.rate_limit_status') $q$, '42501', null, 'anon may not read holdfast.rate_limit_status');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from holdfast.rate_limit_status') $q$, '42501', null, 'owner may not read holdfast.rate_limit_status');
select throws_ok($q$ select pg_temp.run_as('other', 'select from holdfast.rate_limit_status') $q$, '42501', null, 'other may not read holdfast.rate_limit_status');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from holdfast.rate_limit_status') $q$, '42501', null, 'admin may not read holdfast.rate_limit_status');
select lives_ok($q$ select pg_temp.run_as('service_role', 'select from holdfast.rate_limit_status') $q$, 'service_role reads every row of holdfast.rate_limit_status');
select ok(not has_table_privilege('anon', 'holdfast.rate_limit_status', 'insert'), 'anon may not insert into holdfast.rate_limit_status');
select ok(not has_table_privilege('authenticated', 'holdfast.rate_limit_status', 'insert'), 'owner may not insert into holdfast.rate_limit_status');
select ok(not has_table_privilege('authenticated', 'holdfast.rate_limit_status', 'insert'), 'other may not insert into holdfast.rate_limit_status');
select ok(not has_table_privilege('authenticated', 'holdfast.rate_limit_status', 'insert'), 'admin may not insert into holdfast.rate_limit_status');
select ok(not has_table_privilege('service_role', 'holdfast.rate_limit_status', 'insert'), 'service_role may not insert into holdfast.rate_limit_status');
select ok(not has_table_privilege('anon', 'holdfast.rate_limit_status', 'update'), 'anon may not update holdfast.rate_limit_status');
select ok(not has_table_privilege('authenticated', 'holdfast.rate_limit_status', 'update'), 'owner may not update holdfast.rate_limit_status');
select ok(not has_table_privilege('authenticated', 'holdfast.rate_limit_status', 'update'), 'other may not update holdfast.rate_limit_status');
select ok(not has_table_privilege('authenticated', 'holdfast.rate_limit_status', 'update'), 'admin may not update holdfast.rate_limit_status');
select ok(not has_table_privilege('service_role', 'holdfast.rate_limit_status', 'update'), 'service_role may not update holdfast.rate_limit_status');
select ok(not has_table_privilege('anon', 'holdfast.rate_limit_status', 'delete'), 'anon may not delete from holdfast.rate_limit_status');
select ok(not has_table_privilege('authenticated', 'holdfast.rate_limit_status', 'delete'), 'owner may not delete from holdfast.rate_limit_status');
select ok(not has_table_privilege('authenticated', 'holdfast.rate_limit_status', 'delete'), 'other may not delete from holdfast.rate_limit_status');
select ok(not has_table_privilege('authenticated', 'holdfast.rate_limit_status', 'delete'), 'admin may not delete from holdfast.rate_limit_status');
select ok(not has_table_privilege('service_role', 'holdfast.rate_limit_status', 'delete'), 'service_role may not delete from holdfast.rate_limit_status');

-- holdfast.cache_entries: Cached values; they may be anything, also personal.
select throws_ok($q$ select pg_temp.reach('anon', 'select', 'holdfast.cache_entries') $q$, '42501', null, 'anon may not read holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('owner', 'select', 'holdfast.cache_entries') $q$, '42501', null, 'owner may not read holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('other', 'select', 'holdfast.cache_entries') $q$, '42501', null, 'other may not read holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('admin', 'select', 'holdfast.cache_entries') $q$, '42501', null, 'admin may not read holdfast.cache_entries');
select is(pg_temp.reach('service_role', 'select', 'holdfast.cache_entries'), array['row'], 'service_role reads every row of holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('anon', 'insert', 'holdfast.cache_entries') $q$, '42501', null, 'anon may not insert into holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('owner', 'insert', 'holdfast.cache_entries') $q$, '42501', null, 'owner may not insert into holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('other', 'insert', 'holdfast.cache_entries') $q$, '42501', null, 'other may not insert into holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('admin', 'insert', 'holdfast.cache_entries') $q$, '42501', null, 'admin may not insert into holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('service_role', 'insert', 'holdfast.cache_entries') $q$, '42501', null, 'service_role may not insert into holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('anon', 'update', 'holdfast.cache_entries') $q$, '42501', null, 'anon may not update holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('owner', 'update', 'holdfast.cache_entries') $q$, '42501', null, 'owner may not update holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('other', 'update', 'holdfast.cache_entries') $q$, '42501', null, 'other may not update holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('admin', 'update', 'holdfast.cache_entries') $q$, '42501', null, 'admin may not update holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('service_role', 'update', 'holdfast.cache_entries') $q$, '42501', null, 'service_role may not update holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('anon', 'delete', 'holdfast.cache_entries') $q$, '42501', null, 'anon may not delete from holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('owner', 'delete', 'holdfast.cache_entries') $q$, '42501', null, 'owner may not delete from holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('other', 'delete', 'holdfast.cache_entries') $q$, '42501', null, 'other may not delete from holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('admin', 'delete', 'holdfast.cache_entries') $q$, '42501', null, 'admin may not delete from holdfast.cache_entries');
select throws_ok($q$ select pg_temp.reach('service_role', 'delete', 'holdfast.cache_entries') $q$, '42501', null, 'service_role may not delete from holdfast.cache_entries');

select throws_ok(
    format('select pg_temp.run_as(%L, %L)', who, call), '42501', null, format('%s may not use %s', who, name)
)
from unnest(array['anon', 'owner', 'other', 'admin', 'service_role']) as who
cross join (values
    ('holdfast.compensation_positions', 'select nextval(''holdfast.compensation_positions'')'),
    ('holdfast.idempotency_lease_tokens', 'select nextval(''holdfast.idempotency_lease_tokens'')'),
    ('holdfast.circuit_breaker_tokens', 'select nextval(''holdfast.circuit_breaker_tokens'')'),
    ('holdfast.circuit_breaker_events_id_seq', 'select nextval(''holdfast.circuit_breaker_events_id_seq'')'),
    ('holdfast.cache_tokens', 'select nextval(''holdfast.cache_tokens'')')
) as refused (name, call);

select ok(
    has_schema_privilege(role, split_part(name, '.', 1), 'usage') and has_function_privilege(role, name, 'execute'),
    format('%s may use %s', who, name)
)
from (values ('anon', 'anon'), ('owner', 'authenticated'), ('other', 'authenticated'), ('admin', 'authenticated'), ('service_role', 'service_role')) as may (who, role)
cross join unnest(array['holdfast.is_admin()']) as name;

select throws_ok(
    format('select pg_temp.run_as(%L, %L)', who, call), '42501', null, format('%s may not use %s', who, name)
)
from unnest(array['anon', 'owner', 'other', 'admin', 'service_role']) as who
cross join (values
    ('holdfast.stamp_times()', 'select holdfast.stamp_times()'),
    ('holdfast.transaction_retention()', 'select holdfast.transaction_retention()'),
    ('holdfast.transaction_lock_key(uuid)', 'select holdfast.transaction_lock_key(null::uuid)'),
    ('holdfast.write_transaction(uuid,jsonb,text,bigint,text[],text)', 'select holdfast.write_transaction(null::uuid, null::jsonb, null::text, null::bigint, null::text[], null::text)'),
    ('holdfast.commit_transaction(uuid,jsonb,bigint,text[])', 'select holdfast.commit_transaction(null::uuid, null::jsonb, null::bigint, null::text[])'),
    ('holdfast.transaction_status_of(text)', 'select holdfast.transaction_status_of(null::text)'),
    ('holdfast.resolve_transaction(uuid,jsonb,text,boolean)', 'select holdfast.resolve_transaction(null::uuid, null::jsonb, null::text, null::boolean)'),
    ('holdfast.sweep_transactions()', 'select holdfast.sweep_transactions()'),
    ('holdfast.purge_transactions(bigint)', 'select holdfast.purge_transactions(null::bigint)'),
    ('holdfast.compensation_grace()', 'select holdfast.compensation_grace()'),
    ('holdfast.bar_transaction(uuid)', 'select holdfast.bar_transaction(null::uuid)'),
    ('holdfast.record_compensation(uuid,bigint,text,text,jsonb,text,text,text,text)', 'select holdfast.record_compensation(null::uuid, null::bigint, null::text, null::text, null::jsonb, null::text, null::text, null::text, null::text)'),
    ('holdfast.settle_compensations(uuid,uuid[])', 'select holdfast.settle_compensations(null::uuid, null::uuid[])'),
    ('holdfast.withdraw_compensation(uuid,uuid)', 'select holdfast.withdraw_compensation(null::uuid, null::uuid)'),
    ('holdfast.compensation_max_attempts()', 'select holdfast.compensation_max_attempts()'),
    ('holdfast.compensation_backoff(bigint)', 'select holdfast.compensation_backoff(null::bigint)'),
    ('holdfast.compensation_retention()', 'select holdfast.compensation_retention()'),
    ('holdfast.claim_compensation(text,text[],bigint,uuid,boolean)', 'select holdfast.claim_compensation(null::text, null::text[], null::bigint, null::uuid, null::boolean)'),
    ('holdfast.finish_compensation(uuid,bigint,text,boolean)', 'select holdfast.finish_compensation(null::uuid, null::bigint, null::text, null::boolean)'),
    ('holdfast.retry_compensation(uuid)', 'select holdfast.retry_compensation(null::uuid)'),
    ('holdfast.ring_compensations()', 'select holdfast.ring_compensations()'),
    ('holdfast.purge_compensations(bigint)', 'select holdfast.purge_compensations(null::bigint)'),
    ('holdfast.find_idempotent_answers(bytea[],bytea[])', 'select holdfast.find_idempotent_answers(null::bytea[], null::bytea[])'),
    ('holdfast.claim_idempotency_key(bytea,bytea)', 'select holdfast.claim_idempotency_key(null::bytea, null::bytea)'),
    ('holdfast.require_answer_size(text,bigint)', 'select holdfast.require_answer_size(null::text, null::bigint)'),
    ('holdfast.store_idempotent_answer(bytea,bytea,text,text,text,smallint,text,text,bigint,bigint)', 'select holdfast.store_idempotent_answer(null::bytea, null::bytea, null::text, null::text, null::text, null::smallint, null::text, null::text, null::bigint, null::bigint)'),
    ('holdfast.purge_idempotency_keys(bigint)', 'select holdfast.purge_idempotency_keys(null::bigint)'),
    ('holdfast.lease_idempotency_key(bytea,bytea,text,text,text,bigint,bigint)', 'select holdfast.lease_idempotency_key(null::bytea, null::bytea, null::text, null::text, null::text, null::bigint, null::bigint)'),
    ('holdfast.complete_idempotency_key(bytea,bigint,smallint,text,text,bigint)', 'select holdfast.complete_idempotency_key(null::bytea, null::bigint, null::smallint, null::text, null::text, null::bigint)'),
    ('holdfast.require_completed_idempotency_key(bytea,bigint,smallint,text,text,bigint,bigint)', 'select holdfast.require_completed_idempotency_key(null::bytea, null::bigint, null::smallint, null::text, null::text, null::bigint, null::bigint)'),
    ('holdfast.release_idempotency_key(bytea,bigint)', 'select holdfast.release_idempotency_key(null::bytea, null::bigint)'),
    ('holdfast.change_circuit_breaker(text,text,text,double precision,text,bigint,bigint)', 'select holdfast.change_circuit_breaker(null::text, null::text, null::text, null::double precision, null::text, null::bigint, null::bigint)'),
    ('holdfast.force_circuit_breaker(text,text,text,jsonb)', 'select holdfast.force_circuit_breaker(null::text, null::text, null::text, null::jsonb)'),
    ('holdfast.default_circuit_breaker_rules()', 'select holdfast.default_circuit_breaker_rules()'),
    ('holdfast.circuit_breaker_retention()', 'select holdfast.circuit_breaker_retention()'),
    ('holdfast.purge_circuit_breaker_events(bigint)', 'select holdfast.purge_circuit_breaker_events(null::bigint)'),
    ('holdfast.require_circuit_breaker_reports(jsonb)', 'select holdfast.require_circuit_breaker_reports(null::jsonb)'),
    ('holdfast.count_circuit_breaker_calls(jsonb)', 'select holdfast.count_circuit_breaker_calls(null::jsonb)'),
    ('holdfast.apply_circuit_breaker_report(jsonb)', 'select holdfast.apply_circuit_breaker_report(null::jsonb)'),
    ('holdfast.probe_wait_ms(holdfast.circuit_breakers,double precision)', 'select holdfast.probe_wait_ms(null::holdfast.circuit_breakers, null::double precision)'),
    ('holdfast.exchange_circuit_breakers(jsonb)', 'select holdfast.exchange_circuit_breakers(null::jsonb)'),
    ('holdfast.block_rate_limit(text,bigint)', 'select holdfast.block_rate_limit(null::text, null::bigint)'),
    ('holdfast.reset_rate_limit(text)', 'select holdfast.reset_rate_limit(null::text)'),
    ('holdfast.purge_rate_limits(bigint)', 'select holdfast.purge_rate_limits(null::bigint)'),
    ('holdfast.decide_rate_limit(text,bigint[],bigint,bigint)', 'select holdfast.decide_rate_limit(null::text, null::bigint[], null::bigint, null::bigint)'),
    ('holdfast.decide_rate_limits(text[],bigint[])', 'select holdfast.decide_rate_limits(null::text[], null::bigint[])'),
    ('holdfast.decide_gcra_limit(text,bigint,bigint,bigint,bigint,bigint)', 'select holdfast.decide_gcra_limit(null::text, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint)'),
    ('holdfast.decide_gcra_limits(text[],bigint[],bigint,bigint,bigint,bigint)', 'select holdfast.decide_gcra_limits(null::text[], null::bigint[], null::bigint, null::bigint, null::bigint, null::bigint)'),
    ('holdfast.enter_guards(bigint[],jsonb,jsonb)', 'select holdfast.enter_guards(null::bigint[], null::jsonb, null::jsonb)'),
    ('holdfast.lease_cache_entry(text,text,text,text[],double precision,double precision)', 'select holdfast.lease_cache_entry(null::text, null::text, null::text, null::text[], null::double precision, null::double precision)'),
    ('holdfast.read_cache_entries(jsonb)', 'select holdfast.read_cache_entries(null::jsonb)'),
    ('holdfast.write_cache_entry(text,text,text,text[],bigint,text,double precision,double precision)', 'select holdfast.write_cache_entry(null::text, null::text, null::text, null::text[], null::bigint, null::text, null::double precision, null::double precision)'),
    ('holdfast.release_cache_entry(text,text,bigint)', 'select holdfast.release_cache_entry(null::text, null::text, null::bigint)'),
    ('holdfast.invalidate_cache(text,text[],text[])', 'select holdfast.invalidate_cache(null::text, null::text[], null::text[])'),
    ('holdfast.purge_cache_entries(bigint)', 'select holdfast.purge_cache_entries(null::bigint)')
) as refused (name, call);

select * from finish();

rollback;
