-- What: who may do what in schema audit, tried for each role on rows that are made here and rolled back.
-- Why: for `supabase test db`. Generated from tests/rls/matrix.ts by `npm run rls -- --write`: change that.
-- Who: whoever may create pgTAP and write auth.users, as `postgres` of a local project may.

begin;

create extension if not exists pgtap with schema extensions;

set local search_path = public, extensions;

select plan(753);

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

select is_empty(
    $q$ select c.oid::regclass from pg_class as c
    where c.relnamespace = 'audit'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity $q$,
    'row level security is on for every table of schema audit'
);

select is_empty(
    $q$ select c.relname from pg_class as c
    where c.relnamespace = 'audit'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
    and not c.relispartition
    and 'audit.' || c.relname <> all (array[
        'audit.database_changes',
        'audit.gaps',
        'audit.seals',
        'audit.retired_months',
        'audit.settings',
        'audit.tables',
        'audit.changes',
        'audit.recent_changes',
        'audit.changes_by_person',
        'audit.changes_by_table',
        'audit.recent_events',
        'audit.recent_schema_changes',
        'audit.unrecorded',
        'audit.audited_tables'
    ]) $q$,
    'the declaration names every table and view of schema audit'
);

select is_empty(
    $q$ select p.oid::regprocedure from pg_proc as p
    where p.pronamespace = 'audit'::regnamespace
    and 'audit.' || regexp_replace(p.oid::regprocedure::text, '^audit\.', '') !~ '^audit\.record_\d+\(\)$'
    and 'audit.' || regexp_replace(p.oid::regprocedure::text, '^audit\.', '') <> all (array[
        'audit.record(text,text,text,jsonb,jsonb)',
        'audit.by_actor(text,timestamp with time zone,timestamp with time zone,integer)',
        'audit.by_actor(uuid,timestamp with time zone,timestamp with time zone,integer)',
        'audit.diff(bigint)',
        'audit.diff(regclass,anyelement,timestamp with time zone,timestamp with time zone)',
        'audit.diff(text,text,timestamp with time zone,timestamp with time zone)',
        'audit.find_changes(jsonb,integer,bigint)',
        'audit.head()',
        'audit.row_history(regclass,anyelement)',
        'audit.row_history(regclass,text)',
        'audit.row_history(text,text)',
        'audit.verify(timestamp with time zone,timestamp with time zone,bytea)',
        'audit.sounds_secret(text)',
        'audit.statement()',
        'audit.add_to_chain(audit.seals)',
        'audit.address_code(integer)',
        'audit.append_only()',
        'audit.change_digests(date,int8multirange)',
        'audit.changed_values(jsonb)',
        'audit.check_filters(jsonb)',
        'audit.cluster_id()',
        'audit.column_code(audit.tables)',
        'audit.count_gap(text,text,text,text)',
        'audit.details_code(audit.tables,text)',
        'audit.disable(regclass)',
        'audit.drop_expired_partitions()',
        'audit.email_of(uuid)',
        'audit.enable(regclass,text[],text[],boolean)',
        'audit.enable_platform()',
        'audit.filter_time(jsonb,text)',
        'audit.find_change_ids(jsonb,integer,bigint)',
        'audit.fingerprint(audit.tables)',
        'audit.first_broken_change(audit.seals)',
        'audit.first_broken_link()',
        'audit.first_unknown_change(timestamp with time zone,timestamp with time zone)',
        'audit.former_key(oid,jsonb)',
        'audit.forwarded_for(text,integer)',
        'audit.generate(regclass)',
        'audit.guard_partition(regclass)',
        'audit.hash_changes(date,int8multirange)',
        'audit.history_end(oid,text[],text,bigint)',
        'audit.history_ids(text,text)',
        'audit.holds_json(oid)',
        'audit.identity_of(oid)',
        'audit.insert_code(audit.tables,text,text,text)',
        'audit.is_generated(text)',
        'audit.join_code(text[])',
        'audit.json_text(json)',
        'audit.keep_seals()',
        'audit.key_code(oid,text)',
        'audit.key_columns(oid)',
        'audit.key_text(oid,text)',
        'audit.make_partitions(integer)',
        'audit.month_is_there(date)',
        'audit.month_name(date)',
        'audit.month_of(timestamp with time zone)',
        'audit.name_default_partition()',
        'audit.nth_name(oid)',
        'audit.note_reading(text,jsonb)',
        'audit.open_gaps()',
        'audit.partition_name(date)',
        'audit.partition_range(oid)',
        'audit.readable_ip(text)',
        'audit.readable_json(text)',
        'audit.readable_request()',
        'audit.recently()',
        'audit.record_ddl()',
        'audit.record_drop()',
        'audit.record_session()',
        'audit.refresh(oid[])',
        'audit.refuse_filter(text,text)',
        'audit.renamed(text[],jsonb,jsonb)',
        'audit.require_history(text,oid)',
        'audit.require_reader()',
        'audit.retire_seals(date,interval)',
        'audit.retirement_hash(audit.retired_months)',
        'audit.retirement_problem()',
        'audit.row_code(audit.tables,text)',
        'audit.row_exists(oid,text)',
        'audit.seal(bigint)',
        'audit.seal_hash(audit.seals)',
        'audit.see_gaps(text)',
        'audit.stale_tables(oid[])',
        'audit.trigger_code(audit.tables)',
        'audit.unsealed_changes(bigint)',
        'audit.users_named(text)',
        'audit.watch()',
        'audit.with_oddities(text)',
        'audit.worth_recording(audit.tables)',
        'audit.writer()'
    ]) $q$,
    'the declaration names every function of schema audit'
);

-- audit.database_changes: Who changed what. Partitioned by month.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from audit.database_changes') $q$, '42501', null, 'anon may not read audit.database_changes');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from audit.database_changes') $q$, '42501', null, 'owner may not read audit.database_changes');
select throws_ok($q$ select pg_temp.run_as('other', 'select from audit.database_changes') $q$, '42501', null, 'other may not read audit.database_changes');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from audit.database_changes') $q$, '42501', null, 'admin may not read audit.database_changes');
select throws_ok($q$ select pg_temp.run_as('service_role', 'select from audit.database_changes') $q$, '42501', null, 'service_role may not read audit.database_changes');
select ok(not has_table_privilege('anon', 'audit.database_changes', 'insert'), 'anon may not insert into audit.database_changes');
select ok(not has_table_privilege('authenticated', 'audit.database_changes', 'insert'), 'owner may not insert into audit.database_changes');
select ok(not has_table_privilege('authenticated', 'audit.database_changes', 'insert'), 'other may not insert into audit.database_changes');
select ok(not has_table_privilege('authenticated', 'audit.database_changes', 'insert'), 'admin may not insert into audit.database_changes');
select ok(not has_table_privilege('service_role', 'audit.database_changes', 'insert'), 'service_role may not insert into audit.database_changes');
select ok(not has_table_privilege('anon', 'audit.database_changes', 'update'), 'anon may not update audit.database_changes');
select ok(not has_table_privilege('authenticated', 'audit.database_changes', 'update'), 'owner may not update audit.database_changes');
select ok(not has_table_privilege('authenticated', 'audit.database_changes', 'update'), 'other may not update audit.database_changes');
select ok(not has_table_privilege('authenticated', 'audit.database_changes', 'update'), 'admin may not update audit.database_changes');
select ok(not has_table_privilege('service_role', 'audit.database_changes', 'update'), 'service_role may not update audit.database_changes');
select ok(not has_table_privilege('anon', 'audit.database_changes', 'delete'), 'anon may not delete from audit.database_changes');
select ok(not has_table_privilege('authenticated', 'audit.database_changes', 'delete'), 'owner may not delete from audit.database_changes');
select ok(not has_table_privilege('authenticated', 'audit.database_changes', 'delete'), 'other may not delete from audit.database_changes');
select ok(not has_table_privilege('authenticated', 'audit.database_changes', 'delete'), 'admin may not delete from audit.database_changes');
select ok(not has_table_privilege('service_role', 'audit.database_changes', 'delete'), 'service_role may not delete from audit.database_changes');

-- audit.gaps: What could not be recorded, counted.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from audit.gaps') $q$, '42501', null, 'anon may not read audit.gaps');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from audit.gaps') $q$, '42501', null, 'owner may not read audit.gaps');
select throws_ok($q$ select pg_temp.run_as('other', 'select from audit.gaps') $q$, '42501', null, 'other may not read audit.gaps');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from audit.gaps') $q$, '42501', null, 'admin may not read audit.gaps');
select throws_ok($q$ select pg_temp.run_as('service_role', 'select from audit.gaps') $q$, '42501', null, 'service_role may not read audit.gaps');
select ok(not has_table_privilege('anon', 'audit.gaps', 'insert'), 'anon may not insert into audit.gaps');
select ok(not has_table_privilege('authenticated', 'audit.gaps', 'insert'), 'owner may not insert into audit.gaps');
select ok(not has_table_privilege('authenticated', 'audit.gaps', 'insert'), 'other may not insert into audit.gaps');
select ok(not has_table_privilege('authenticated', 'audit.gaps', 'insert'), 'admin may not insert into audit.gaps');
select ok(not has_table_privilege('service_role', 'audit.gaps', 'insert'), 'service_role may not insert into audit.gaps');
select ok(not has_table_privilege('anon', 'audit.gaps', 'update'), 'anon may not update audit.gaps');
select ok(not has_table_privilege('authenticated', 'audit.gaps', 'update'), 'owner may not update audit.gaps');
select ok(not has_table_privilege('authenticated', 'audit.gaps', 'update'), 'other may not update audit.gaps');
select ok(not has_table_privilege('authenticated', 'audit.gaps', 'update'), 'admin may not update audit.gaps');
select ok(not has_table_privilege('service_role', 'audit.gaps', 'update'), 'service_role may not update audit.gaps');
select ok(not has_table_privilege('anon', 'audit.gaps', 'delete'), 'anon may not delete from audit.gaps');
select ok(not has_table_privilege('authenticated', 'audit.gaps', 'delete'), 'owner may not delete from audit.gaps');
select ok(not has_table_privilege('authenticated', 'audit.gaps', 'delete'), 'other may not delete from audit.gaps');
select ok(not has_table_privilege('authenticated', 'audit.gaps', 'delete'), 'admin may not delete from audit.gaps');
select ok(not has_table_privilege('service_role', 'audit.gaps', 'delete'), 'service_role may not delete from audit.gaps');

-- audit.seals: The chain of hashes over the trail.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from audit.seals') $q$, '42501', null, 'anon may not read audit.seals');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from audit.seals') $q$, '42501', null, 'owner may not read audit.seals');
select throws_ok($q$ select pg_temp.run_as('other', 'select from audit.seals') $q$, '42501', null, 'other may not read audit.seals');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from audit.seals') $q$, '42501', null, 'admin may not read audit.seals');
select throws_ok($q$ select pg_temp.run_as('service_role', 'select from audit.seals') $q$, '42501', null, 'service_role may not read audit.seals');
select ok(not has_table_privilege('anon', 'audit.seals', 'insert'), 'anon may not insert into audit.seals');
select ok(not has_table_privilege('authenticated', 'audit.seals', 'insert'), 'owner may not insert into audit.seals');
select ok(not has_table_privilege('authenticated', 'audit.seals', 'insert'), 'other may not insert into audit.seals');
select ok(not has_table_privilege('authenticated', 'audit.seals', 'insert'), 'admin may not insert into audit.seals');
select ok(not has_table_privilege('service_role', 'audit.seals', 'insert'), 'service_role may not insert into audit.seals');
select ok(not has_table_privilege('anon', 'audit.seals', 'update'), 'anon may not update audit.seals');
select ok(not has_table_privilege('authenticated', 'audit.seals', 'update'), 'owner may not update audit.seals');
select ok(not has_table_privilege('authenticated', 'audit.seals', 'update'), 'other may not update audit.seals');
select ok(not has_table_privilege('authenticated', 'audit.seals', 'update'), 'admin may not update audit.seals');
select ok(not has_table_privilege('service_role', 'audit.seals', 'update'), 'service_role may not update audit.seals');
select ok(not has_table_privilege('anon', 'audit.seals', 'delete'), 'anon may not delete from audit.seals');
select ok(not has_table_privilege('authenticated', 'audit.seals', 'delete'), 'owner may not delete from audit.seals');
select ok(not has_table_privilege('authenticated', 'audit.seals', 'delete'), 'other may not delete from audit.seals');
select ok(not has_table_privilege('authenticated', 'audit.seals', 'delete'), 'admin may not delete from audit.seals');
select ok(not has_table_privilege('service_role', 'audit.seals', 'delete'), 'service_role may not delete from audit.seals');

-- audit.retired_months: Months whose rows are gone, with their last hash.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from audit.retired_months') $q$, '42501', null, 'anon may not read audit.retired_months');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from audit.retired_months') $q$, '42501', null, 'owner may not read audit.retired_months');
select throws_ok($q$ select pg_temp.run_as('other', 'select from audit.retired_months') $q$, '42501', null, 'other may not read audit.retired_months');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from audit.retired_months') $q$, '42501', null, 'admin may not read audit.retired_months');
select throws_ok($q$ select pg_temp.run_as('service_role', 'select from audit.retired_months') $q$, '42501', null, 'service_role may not read audit.retired_months');
select ok(not has_table_privilege('anon', 'audit.retired_months', 'insert'), 'anon may not insert into audit.retired_months');
select ok(not has_table_privilege('authenticated', 'audit.retired_months', 'insert'), 'owner may not insert into audit.retired_months');
select ok(not has_table_privilege('authenticated', 'audit.retired_months', 'insert'), 'other may not insert into audit.retired_months');
select ok(not has_table_privilege('authenticated', 'audit.retired_months', 'insert'), 'admin may not insert into audit.retired_months');
select ok(not has_table_privilege('service_role', 'audit.retired_months', 'insert'), 'service_role may not insert into audit.retired_months');
select ok(not has_table_privilege('anon', 'audit.retired_months', 'update'), 'anon may not update audit.retired_months');
select ok(not has_table_privilege('authenticated', 'audit.retired_months', 'update'), 'owner may not update audit.retired_months');
select ok(not has_table_privilege('authenticated', 'audit.retired_months', 'update'), 'other may not update audit.retired_months');
select ok(not has_table_privilege('authenticated', 'audit.retired_months', 'update'), 'admin may not update audit.retired_months');
select ok(not has_table_privilege('service_role', 'audit.retired_months', 'update'), 'service_role may not update audit.retired_months');
select ok(not has_table_privilege('anon', 'audit.retired_months', 'delete'), 'anon may not delete from audit.retired_months');
select ok(not has_table_privilege('authenticated', 'audit.retired_months', 'delete'), 'owner may not delete from audit.retired_months');
select ok(not has_table_privilege('authenticated', 'audit.retired_months', 'delete'), 'other may not delete from audit.retired_months');
select ok(not has_table_privilege('authenticated', 'audit.retired_months', 'delete'), 'admin may not delete from audit.retired_months');
select ok(not has_table_privilege('service_role', 'audit.retired_months', 'delete'), 'service_role may not delete from audit.retired_months');

-- audit.settings: How the trail is kept.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from audit.settings') $q$, '42501', null, 'anon may not read audit.settings');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from audit.settings') $q$, '42501', null, 'owner may not read audit.settings');
select throws_ok($q$ select pg_temp.run_as('other', 'select from audit.settings') $q$, '42501', null, 'other may not read audit.settings');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from audit.settings') $q$, '42501', null, 'admin may not read audit.settings');
select throws_ok($q$ select pg_temp.run_as('service_role', 'select from audit.settings') $q$, '42501', null, 'service_role may not read audit.settings');
select ok(not has_table_privilege('anon', 'audit.settings', 'insert'), 'anon may not insert into audit.settings');
select ok(not has_table_privilege('authenticated', 'audit.settings', 'insert'), 'owner may not insert into audit.settings');
select ok(not has_table_privilege('authenticated', 'audit.settings', 'insert'), 'other may not insert into audit.settings');
select ok(not has_table_privilege('authenticated', 'audit.settings', 'insert'), 'admin may not insert into audit.settings');
select ok(not has_table_privilege('service_role', 'audit.settings', 'insert'), 'service_role may not insert into audit.settings');
select ok(not has_table_privilege('anon', 'audit.settings', 'update'), 'anon may not update audit.settings');
select ok(not has_table_privilege('authenticated', 'audit.settings', 'update'), 'owner may not update audit.settings');
select ok(not has_table_privilege('authenticated', 'audit.settings', 'update'), 'other may not update audit.settings');
select ok(not has_table_privilege('authenticated', 'audit.settings', 'update'), 'admin may not update audit.settings');
select ok(not has_table_privilege('service_role', 'audit.settings', 'update'), 'service_role may not update audit.settings');
select ok(not has_table_privilege('anon', 'audit.settings', 'delete'), 'anon may not delete from audit.settings');
select ok(not has_table_privilege('authenticated', 'audit.settings', 'delete'), 'owner may not delete from audit.settings');
select ok(not has_table_privilege('authenticated', 'audit.settings', 'delete'), 'other may not delete from audit.settings');
select ok(not has_table_privilege('authenticated', 'audit.settings', 'delete'), 'admin may not delete from audit.settings');
select ok(not has_table_privilege('service_role', 'audit.settings', 'delete'), 'service_role may not delete from audit.settings');

-- audit.tables: Which tables are audited, and how.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from audit.tables') $q$, '42501', null, 'anon may not read audit.tables');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from audit.tables') $q$, '42501', null, 'owner may not read audit.tables');
select throws_ok($q$ select pg_temp.run_as('other', 'select from audit.tables') $q$, '42501', null, 'other may not read audit.tables');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from audit.tables') $q$, '42501', null, 'admin may not read audit.tables');
select throws_ok($q$ select pg_temp.run_as('service_role', 'select from audit.tables') $q$, '42501', null, 'service_role may not read audit.tables');
select ok(not has_table_privilege('anon', 'audit.tables', 'insert'), 'anon may not insert into audit.tables');
select ok(not has_table_privilege('authenticated', 'audit.tables', 'insert'), 'owner may not insert into audit.tables');
select ok(not has_table_privilege('authenticated', 'audit.tables', 'insert'), 'other may not insert into audit.tables');
select ok(not has_table_privilege('authenticated', 'audit.tables', 'insert'), 'admin may not insert into audit.tables');
select ok(not has_table_privilege('service_role', 'audit.tables', 'insert'), 'service_role may not insert into audit.tables');
select ok(not has_table_privilege('anon', 'audit.tables', 'update'), 'anon may not update audit.tables');
select ok(not has_table_privilege('authenticated', 'audit.tables', 'update'), 'owner may not update audit.tables');
select ok(not has_table_privilege('authenticated', 'audit.tables', 'update'), 'other may not update audit.tables');
select ok(not has_table_privilege('authenticated', 'audit.tables', 'update'), 'admin may not update audit.tables');
select ok(not has_table_privilege('service_role', 'audit.tables', 'update'), 'service_role may not update audit.tables');
select ok(not has_table_privilege('anon', 'audit.tables', 'delete'), 'anon may not delete from audit.tables');
select ok(not has_table_privilege('authenticated', 'audit.tables', 'delete'), 'owner may not delete from audit.tables');
select ok(not has_table_privilege('authenticated', 'audit.tables', 'delete'), 'other may not delete from audit.tables');
select ok(not has_table_privilege('authenticated', 'audit.tables', 'delete'), 'admin may not delete from audit.tables');
select ok(not has_table_privilege('service_role', 'audit.tables', 'delete'), 'service_role may not delete from audit.tables');

-- audit.changes: View: the trail in plain words.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from audit.changes') $q$, '42501', null, 'anon may not read audit.changes');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from audit.changes') $q$, '42501', null, 'owner may not read audit.changes');
select throws_ok($q$ select pg_temp.run_as('other', 'select from audit.changes') $q$, '42501', null, 'other may not read audit.changes');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from audit.changes') $q$, '42501', null, 'admin may not read audit.changes');
select throws_ok($q$ select pg_temp.run_as('service_role', 'select from audit.changes') $q$, '42501', null, 'service_role may not read audit.changes');
select ok(not has_table_privilege('anon', 'audit.changes', 'insert'), 'anon may not insert into audit.changes');
select ok(not has_table_privilege('authenticated', 'audit.changes', 'insert'), 'owner may not insert into audit.changes');
select ok(not has_table_privilege('authenticated', 'audit.changes', 'insert'), 'other may not insert into audit.changes');
select ok(not has_table_privilege('authenticated', 'audit.changes', 'insert'), 'admin may not insert into audit.changes');
select ok(not has_table_privilege('service_role', 'audit.changes', 'insert'), 'service_role may not insert into audit.changes');
select ok(not has_table_privilege('anon', 'audit.changes', 'update'), 'anon may not update audit.changes');
select ok(not has_table_privilege('authenticated', 'audit.changes', 'update'), 'owner may not update audit.changes');
select ok(not has_table_privilege('authenticated', 'audit.changes', 'update'), 'other may not update audit.changes');
select ok(not has_table_privilege('authenticated', 'audit.changes', 'update'), 'admin may not update audit.changes');
select ok(not has_table_privilege('service_role', 'audit.changes', 'update'), 'service_role may not update audit.changes');
select ok(not has_table_privilege('anon', 'audit.changes', 'delete'), 'anon may not delete from audit.changes');
select ok(not has_table_privilege('authenticated', 'audit.changes', 'delete'), 'owner may not delete from audit.changes');
select ok(not has_table_privilege('authenticated', 'audit.changes', 'delete'), 'other may not delete from audit.changes');
select ok(not has_table_privilege('authenticated', 'audit.changes', 'delete'), 'admin may not delete from audit.changes');
select ok(not has_table_privilege('service_role', 'audit.changes', 'delete'), 'service_role may not delete from audit.changes');

-- audit.recent_changes: View: changes of the last days.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from audit.recent_changes') $q$, '42501', null, 'anon may not read audit.recent_changes');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from audit.recent_changes') $q$, '42501', null, 'owner may not read audit.recent_changes');
select throws_ok($q$ select pg_temp.run_as('other', 'select from audit.recent_changes') $q$, '42501', null, 'other may not read audit.recent_changes');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from audit.recent_changes') $q$, '42501', null, 'admin may not read audit.recent_changes');
select throws_ok($q$ select pg_temp.run_as('service_role', 'select from audit.recent_changes') $q$, '42501', null, 'service_role may not read audit.recent_changes');
select ok(not has_table_privilege('anon', 'audit.recent_changes', 'insert'), 'anon may not insert into audit.recent_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_changes', 'insert'), 'owner may not insert into audit.recent_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_changes', 'insert'), 'other may not insert into audit.recent_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_changes', 'insert'), 'admin may not insert into audit.recent_changes');
select ok(not has_table_privilege('service_role', 'audit.recent_changes', 'insert'), 'service_role may not insert into audit.recent_changes');
select ok(not has_table_privilege('anon', 'audit.recent_changes', 'update'), 'anon may not update audit.recent_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_changes', 'update'), 'owner may not update audit.recent_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_changes', 'update'), 'other may not update audit.recent_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_changes', 'update'), 'admin may not update audit.recent_changes');
select ok(not has_table_privilege('service_role', 'audit.recent_changes', 'update'), 'service_role may not update audit.recent_changes');
select ok(not has_table_privilege('anon', 'audit.recent_changes', 'delete'), 'anon may not delete from audit.recent_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_changes', 'delete'), 'owner may not delete from audit.recent_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_changes', 'delete'), 'other may not delete from audit.recent_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_changes', 'delete'), 'admin may not delete from audit.recent_changes');
select ok(not has_table_privilege('service_role', 'audit.recent_changes', 'delete'), 'service_role may not delete from audit.recent_changes');

-- audit.changes_by_person: View: how much each person has changed.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from audit.changes_by_person') $q$, '42501', null, 'anon may not read audit.changes_by_person');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from audit.changes_by_person') $q$, '42501', null, 'owner may not read audit.changes_by_person');
select throws_ok($q$ select pg_temp.run_as('other', 'select from audit.changes_by_person') $q$, '42501', null, 'other may not read audit.changes_by_person');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from audit.changes_by_person') $q$, '42501', null, 'admin may not read audit.changes_by_person');
select throws_ok($q$ select pg_temp.run_as('service_role', 'select from audit.changes_by_person') $q$, '42501', null, 'service_role may not read audit.changes_by_person');
select ok(not has_table_privilege('anon', 'audit.changes_by_person', 'insert'), 'anon may not insert into audit.changes_by_person');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_person', 'insert'), 'owner may not insert into audit.changes_by_person');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_person', 'insert'), 'other may not insert into audit.changes_by_person');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_person', 'insert'), 'admin may not insert into audit.changes_by_person');
select ok(not has_table_privilege('service_role', 'audit.changes_by_person', 'insert'), 'service_role may not insert into audit.changes_by_person');
select ok(not has_table_privilege('anon', 'audit.changes_by_person', 'update'), 'anon may not update audit.changes_by_person');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_person', 'update'), 'owner may not update audit.changes_by_person');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_person', 'update'), 'other may not update audit.changes_by_person');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_person', 'update'), 'admin may not update audit.changes_by_person');
select ok(not has_table_privilege('service_role', 'audit.changes_by_person', 'update'), 'service_role may not update audit.changes_by_person');
select ok(not has_table_privilege('anon', 'audit.changes_by_person', 'delete'), 'anon may not delete from audit.changes_by_person');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_person', 'delete'), 'owner may not delete from audit.changes_by_person');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_person', 'delete'), 'other may not delete from audit.changes_by_person');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_person', 'delete'), 'admin may not delete from audit.changes_by_person');
select ok(not has_table_privilege('service_role', 'audit.changes_by_person', 'delete'), 'service_role may not delete from audit.changes_by_person');

-- audit.changes_by_table: View: how much has changed in each table.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from audit.changes_by_table') $q$, '42501', null, 'anon may not read audit.changes_by_table');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from audit.changes_by_table') $q$, '42501', null, 'owner may not read audit.changes_by_table');
select throws_ok($q$ select pg_temp.run_as('other', 'select from audit.changes_by_table') $q$, '42501', null, 'other may not read audit.changes_by_table');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from audit.changes_by_table') $q$, '42501', null, 'admin may not read audit.changes_by_table');
select throws_ok($q$ select pg_temp.run_as('service_role', 'select from audit.changes_by_table') $q$, '42501', null, 'service_role may not read audit.changes_by_table');
select ok(not has_table_privilege('anon', 'audit.changes_by_table', 'insert'), 'anon may not insert into audit.changes_by_table');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_table', 'insert'), 'owner may not insert into audit.changes_by_table');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_table', 'insert'), 'other may not insert into audit.changes_by_table');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_table', 'insert'), 'admin may not insert into audit.changes_by_table');
select ok(not has_table_privilege('service_role', 'audit.changes_by_table', 'insert'), 'service_role may not insert into audit.changes_by_table');
select ok(not has_table_privilege('anon', 'audit.changes_by_table', 'update'), 'anon may not update audit.changes_by_table');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_table', 'update'), 'owner may not update audit.changes_by_table');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_table', 'update'), 'other may not update audit.changes_by_table');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_table', 'update'), 'admin may not update audit.changes_by_table');
select ok(not has_table_privilege('service_role', 'audit.changes_by_table', 'update'), 'service_role may not update audit.changes_by_table');
select ok(not has_table_privilege('anon', 'audit.changes_by_table', 'delete'), 'anon may not delete from audit.changes_by_table');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_table', 'delete'), 'owner may not delete from audit.changes_by_table');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_table', 'delete'), 'other may not delete from audit.changes_by_table');
select ok(not has_table_privilege('authenticated', 'audit.changes_by_table', 'delete'), 'admin may not delete from audit.changes_by_table');
select ok(not has_table_privilege('service_role', 'audit.changes_by_table', 'delete'), 'service_role may not delete from audit.changes_by_table');

-- audit.recent_events: View: what was recorded that is no change of a row.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from audit.recent_events') $q$, '42501', null, 'anon may not read audit.recent_events');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from audit.recent_events') $q$, '42501', null, 'owner may not read audit.recent_events');
select throws_ok($q$ select pg_temp.run_as('other', 'select from audit.recent_events') $q$, '42501', null, 'other may not read audit.recent_events');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from audit.recent_events') $q$, '42501', null, 'admin may not read audit.recent_events');
select throws_ok($q$ select pg_temp.run_as('service_role', 'select from audit.recent_events') $q$, '42501', null, 'service_role may not read audit.recent_events');
select ok(not has_table_privilege('anon', 'audit.recent_events', 'insert'), 'anon may not insert into audit.recent_events');
select ok(not has_table_privilege('authenticated', 'audit.recent_events', 'insert'), 'owner may not insert into audit.recent_events');
select ok(not has_table_privilege('authenticated', 'audit.recent_events', 'insert'), 'other may not insert into audit.recent_events');
select ok(not has_table_privilege('authenticated', 'audit.recent_events', 'insert'), 'admin may not insert into audit.recent_events');
select ok(not has_table_privilege('service_role', 'audit.recent_events', 'insert'), 'service_role may not insert into audit.recent_events');
select ok(not has_table_privilege('anon', 'audit.recent_events', 'update'), 'anon may not update audit.recent_events');
select ok(not has_table_privilege('authenticated', 'audit.recent_events', 'update'), 'owner may not update audit.recent_events');
select ok(not has_table_privilege('authenticated', 'audit.recent_events', 'update'), 'other may not update audit.recent_events');
select ok(not has_table_privilege('authenticated', 'audit.recent_events', 'update'), 'admin may not update audit.recent_events');
select ok(not has_table_privilege('service_role', 'audit.recent_events', 'update'), 'service_role may not update audit.recent_events');
select ok(not has_table_privilege('anon', 'audit.recent_events', 'delete'), 'anon may not delete from audit.recent_events');
select ok(not has_table_privilege('authenticated', 'audit.recent_events', 'delete'), 'owner may not delete from audit.recent_events');
select ok(not has_table_privilege('authenticated', 'audit.recent_events', 'delete'), 'other may not delete from audit.recent_events');
select ok(not has_table_privilege('authenticated', 'audit.recent_events', 'delete'), 'admin may not delete from audit.recent_events');
select ok(not has_table_privilege('service_role', 'audit.recent_events', 'delete'), 'service_role may not delete from audit.recent_events');

-- audit.recent_schema_changes: View: changes of the schema.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from audit.recent_schema_changes') $q$, '42501', null, 'anon may not read audit.recent_schema_changes');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from audit.recent_schema_changes') $q$, '42501', null, 'owner may not read audit.recent_schema_changes');
select throws_ok($q$ select pg_temp.run_as('other', 'select from audit.recent_schema_changes') $q$, '42501', null, 'other may not read audit.recent_schema_changes');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from audit.recent_schema_changes') $q$, '42501', null, 'admin may not read audit.recent_schema_changes');
select throws_ok($q$ select pg_temp.run_as('service_role', 'select from audit.recent_schema_changes') $q$, '42501', null, 'service_role may not read audit.recent_schema_changes');
select ok(not has_table_privilege('anon', 'audit.recent_schema_changes', 'insert'), 'anon may not insert into audit.recent_schema_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_schema_changes', 'insert'), 'owner may not insert into audit.recent_schema_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_schema_changes', 'insert'), 'other may not insert into audit.recent_schema_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_schema_changes', 'insert'), 'admin may not insert into audit.recent_schema_changes');
select ok(not has_table_privilege('service_role', 'audit.recent_schema_changes', 'insert'), 'service_role may not insert into audit.recent_schema_changes');
select ok(not has_table_privilege('anon', 'audit.recent_schema_changes', 'update'), 'anon may not update audit.recent_schema_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_schema_changes', 'update'), 'owner may not update audit.recent_schema_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_schema_changes', 'update'), 'other may not update audit.recent_schema_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_schema_changes', 'update'), 'admin may not update audit.recent_schema_changes');
select ok(not has_table_privilege('service_role', 'audit.recent_schema_changes', 'update'), 'service_role may not update audit.recent_schema_changes');
select ok(not has_table_privilege('anon', 'audit.recent_schema_changes', 'delete'), 'anon may not delete from audit.recent_schema_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_schema_changes', 'delete'), 'owner may not delete from audit.recent_schema_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_schema_changes', 'delete'), 'other may not delete from audit.recent_schema_changes');
select ok(not has_table_privilege('authenticated', 'audit.recent_schema_changes', 'delete'), 'admin may not delete from audit.recent_schema_changes');
select ok(not has_table_privilege('service_role', 'audit.recent_schema_changes', 'delete'), 'service_role may not delete from audit.recent_schema_changes');

-- audit.unrecorded: View: the gaps in plain words.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from audit.unrecorded') $q$, '42501', null, 'anon may not read audit.unrecorded');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from audit.unrecorded') $q$, '42501', null, 'owner may not read audit.unrecorded');
select throws_ok($q$ select pg_temp.run_as('other', 'select from audit.unrecorded') $q$, '42501', null, 'other may not read audit.unrecorded');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from audit.unrecorded') $q$, '42501', null, 'admin may not read audit.unrecorded');
select throws_ok($q$ select pg_temp.run_as('service_role', 'select from audit.unrecorded') $q$, '42501', null, 'service_role may not read audit.unrecorded');
select ok(not has_table_privilege('anon', 'audit.unrecorded', 'insert'), 'anon may not insert into audit.unrecorded');
select ok(not has_table_privilege('authenticated', 'audit.unrecorded', 'insert'), 'owner may not insert into audit.unrecorded');
select ok(not has_table_privilege('authenticated', 'audit.unrecorded', 'insert'), 'other may not insert into audit.unrecorded');
select ok(not has_table_privilege('authenticated', 'audit.unrecorded', 'insert'), 'admin may not insert into audit.unrecorded');
select ok(not has_table_privilege('service_role', 'audit.unrecorded', 'insert'), 'service_role may not insert into audit.unrecorded');
select ok(not has_table_privilege('anon', 'audit.unrecorded', 'update'), 'anon may not update audit.unrecorded');
select ok(not has_table_privilege('authenticated', 'audit.unrecorded', 'update'), 'owner may not update audit.unrecorded');
select ok(not has_table_privilege('authenticated', 'audit.unrecorded', 'update'), 'other may not update audit.unrecorded');
select ok(not has_table_privilege('authenticated', 'audit.unrecorded', 'update'), 'admin may not update audit.unrecorded');
select ok(not has_table_privilege('service_role', 'audit.unrecorded', 'update'), 'service_role may not update audit.unrecorded');
select ok(not has_table_privilege('anon', 'audit.unrecorded', 'delete'), 'anon may not delete from audit.unrecorded');
select ok(not has_table_privilege('authenticated', 'audit.unrecorded', 'delete'), 'owner may not delete from audit.unrecorded');
select ok(not has_table_privilege('authenticated', 'audit.unrecorded', 'delete'), 'other may not delete from audit.unrecorded');
select ok(not has_table_privilege('authenticated', 'audit.unrecorded', 'delete'), 'admin may not delete from audit.unrecorded');
select ok(not has_table_privilege('service_role', 'audit.unrecorded', 'delete'), 'service_role may not delete from audit.unrecorded');

-- audit.audited_tables: View: the audited tables in plain words.
select throws_ok($q$ select pg_temp.run_as('anon', 'select from audit.audited_tables') $q$, '42501', null, 'anon may not read audit.audited_tables');
select throws_ok($q$ select pg_temp.run_as('owner', 'select from audit.audited_tables') $q$, '42501', null, 'owner may not read audit.audited_tables');
select throws_ok($q$ select pg_temp.run_as('other', 'select from audit.audited_tables') $q$, '42501', null, 'other may not read audit.audited_tables');
select throws_ok($q$ select pg_temp.run_as('admin', 'select from audit.audited_tables') $q$, '42501', null, 'admin may not read audit.audited_tables');
select throws_ok($q$ select pg_temp.run_as('service_role', 'select from audit.audited_tables') $q$, '42501', null, 'service_role may not read audit.audited_tables');
select ok(not has_table_privilege('anon', 'audit.audited_tables', 'insert'), 'anon may not insert into audit.audited_tables');
select ok(not has_table_privilege('authenticated', 'audit.audited_tables', 'insert'), 'owner may not insert into audit.audited_tables');
select ok(not has_table_privilege('authenticated', 'audit.audited_tables', 'insert'), 'other may not insert into audit.audited_tables');
select ok(not has_table_privilege('authenticated', 'audit.audited_tables', 'insert'), 'admin may not insert into audit.audited_tables');
select ok(not has_table_privilege('service_role', 'audit.audited_tables', 'insert'), 'service_role may not insert into audit.audited_tables');
select ok(not has_table_privilege('anon', 'audit.audited_tables', 'update'), 'anon may not update audit.audited_tables');
select ok(not has_table_privilege('authenticated', 'audit.audited_tables', 'update'), 'owner may not update audit.audited_tables');
select ok(not has_table_privilege('authenticated', 'audit.audited_tables', 'update'), 'other may not update audit.audited_tables');
select ok(not has_table_privilege('authenticated', 'audit.audited_tables', 'update'), 'admin may not update audit.audited_tables');
select ok(not has_table_privilege('service_role', 'audit.audited_tables', 'update'), 'service_role may not update audit.audited_tables');
select ok(not has_table_privilege('anon', 'audit.audited_tables', 'delete'), 'anon may not delete from audit.audited_tables');
select ok(not has_table_privilege('authenticated', 'audit.audited_tables', 'delete'), 'owner may not delete from audit.audited_tables');
select ok(not has_table_privilege('authenticated', 'audit.audited_tables', 'delete'), 'other may not delete from audit.audited_tables');
select ok(not has_table_privilege('authenticated', 'audit.audited_tables', 'delete'), 'admin may not delete from audit.audited_tables');
select ok(not has_table_privilege('service_role', 'audit.audited_tables', 'delete'), 'service_role may not delete from audit.audited_tables');

select throws_ok(
    format('select pg_temp.run_as(%L, %L)', who, call), '42501', null, format('%s may not use %s', who, name)
)
from unnest(array['anon', 'owner', 'other', 'admin', 'service_role']) as who
cross join (values
    ('audit.change_ids', 'select nextval(''audit.change_ids'')'),
    ('audit.gap_ids', 'select nextval(''audit.gap_ids'')'),
    ('audit.tables_id_seq', 'select nextval(''audit.tables_id_seq'')')
) as refused (name, call);

select ok(
    has_schema_privilege(role, split_part(name, '.', 1), 'usage') and has_function_privilege(role, name, 'execute'),
    format('%s may use %s', who, name)
)
from (values ('owner', 'authenticated'), ('other', 'authenticated'), ('admin', 'authenticated'), ('service_role', 'service_role')) as may (who, role)
cross join unnest(array['audit.record(text,text,text,jsonb,jsonb)']) as name;

select throws_ok(
    format('select pg_temp.run_as(%L, %L)', who, call), '42501', null, format('%s may not use %s', who, name)
)
from unnest(array['anon']) as who
cross join (values
    ('audit.record(text,text,text,jsonb,jsonb)', 'select audit.record(''order.shown'', ''orders'', ''00000000-0000-4000-8000-0000000000b1'', null, null)')
) as refused (name, call);

select ok(
    has_schema_privilege(role, split_part(name, '.', 1), 'usage') and has_function_privilege(role, name, 'execute'),
    format('%s may use %s', who, name)
)
from (values ('admin', 'authenticated')) as may (who, role)
cross join unnest(array[
    'audit.by_actor(text,timestamp with time zone,timestamp with time zone,integer)',
    'audit.by_actor(uuid,timestamp with time zone,timestamp with time zone,integer)',
    'audit.diff(bigint)',
    'audit.diff(regclass,anyelement,timestamp with time zone,timestamp with time zone)',
    'audit.diff(text,text,timestamp with time zone,timestamp with time zone)',
    'audit.find_changes(jsonb,integer,bigint)',
    'audit.head()',
    'audit.row_history(regclass,anyelement)',
    'audit.row_history(regclass,text)',
    'audit.row_history(text,text)',
    'audit.verify(timestamp with time zone,timestamp with time zone,bytea)'
]) as name;

select throws_ok(
    format('select pg_temp.run_as(%L, %L)', who, call), '42501', null, format('%s may not use %s', who, name)
)
from unnest(array['anon', 'owner', 'other', 'service_role']) as who
cross join (values
    ('audit.by_actor(text,timestamp with time zone,timestamp with time zone,integer)', 'select audit.by_actor(''ada@example.com''::text, ''-infinity'', ''infinity'', 10)'),
    ('audit.by_actor(uuid,timestamp with time zone,timestamp with time zone,integer)', 'select audit.by_actor(''00000000-0000-4000-8000-00000000000a''::uuid, ''-infinity'', ''infinity'', 10)'),
    ('audit.diff(bigint)', 'select audit.diff(1)'),
    ('audit.diff(regclass,anyelement,timestamp with time zone,timestamp with time zone)', 'select audit.diff(''public.orders''::regclass, ''00000000-0000-4000-8000-0000000000b1''::uuid, ''-infinity'', ''infinity'')'),
    ('audit.diff(text,text,timestamp with time zone,timestamp with time zone)', 'select audit.diff(''public.orders''::text, ''00000000-0000-4000-8000-0000000000b1''::text, ''-infinity'', ''infinity'')'),
    ('audit.find_changes(jsonb,integer,bigint)', 'select audit.find_changes(''{}'', 10, null)'),
    ('audit.head()', 'select audit.head()'),
    ('audit.row_history(regclass,anyelement)', 'select audit.row_history(''public.orders''::regclass, ''00000000-0000-4000-8000-0000000000b1''::uuid)'),
    ('audit.row_history(regclass,text)', 'select audit.row_history(''public.orders''::regclass, ''00000000-0000-4000-8000-0000000000b1''::text)'),
    ('audit.row_history(text,text)', 'select audit.row_history(''public.orders''::text, ''00000000-0000-4000-8000-0000000000b1''::text)'),
    ('audit.verify(timestamp with time zone,timestamp with time zone,bytea)', 'select audit.verify(now(), now(), null)')
) as refused (name, call);

select throws_ok(
    format('select pg_temp.run_as(%L, %L)', who, call), '42501', null, format('%s may not use %s', who, name)
)
from unnest(array['anon', 'owner', 'other', 'admin', 'service_role']) as who
cross join (values
    ('audit.sounds_secret(text)', 'select audit.sounds_secret(null::text)'),
    ('audit.statement()', 'select audit.statement()'),
    ('audit.add_to_chain(audit.seals)', 'select audit.add_to_chain(null::audit.seals)'),
    ('audit.address_code(integer)', 'select audit.address_code(null::integer)'),
    ('audit.append_only()', 'select audit.append_only()'),
    ('audit.change_digests(date,int8multirange)', 'select audit.change_digests(null::date, null::int8multirange)'),
    ('audit.changed_values(jsonb)', 'select audit.changed_values(null::jsonb)'),
    ('audit.check_filters(jsonb)', 'select audit.check_filters(null::jsonb)'),
    ('audit.cluster_id()', 'select audit.cluster_id()'),
    ('audit.column_code(audit.tables)', 'select audit.column_code(null::audit.tables)'),
    ('audit.count_gap(text,text,text,text)', 'select audit.count_gap(null::text, null::text, null::text, null::text)'),
    ('audit.details_code(audit.tables,text)', 'select audit.details_code(null::audit.tables, null::text)'),
    ('audit.disable(regclass)', 'select audit.disable(null::regclass)'),
    ('audit.drop_expired_partitions()', 'select audit.drop_expired_partitions()'),
    ('audit.email_of(uuid)', 'select audit.email_of(null::uuid)'),
    ('audit.enable(regclass,text[],text[],boolean)', 'select audit.enable(null::regclass, null::text[], null::text[], null::boolean)'),
    ('audit.enable_platform()', 'select audit.enable_platform()'),
    ('audit.filter_time(jsonb,text)', 'select audit.filter_time(null::jsonb, null::text)'),
    ('audit.find_change_ids(jsonb,integer,bigint)', 'select audit.find_change_ids(null::jsonb, null::integer, null::bigint)'),
    ('audit.fingerprint(audit.tables)', 'select audit.fingerprint(null::audit.tables)'),
    ('audit.first_broken_change(audit.seals)', 'select audit.first_broken_change(null::audit.seals)'),
    ('audit.first_broken_link()', 'select audit.first_broken_link()'),
    ('audit.first_unknown_change(timestamp with time zone,timestamp with time zone)', 'select audit.first_unknown_change(null::timestamp with time zone, null::timestamp with time zone)'),
    ('audit.former_key(oid,jsonb)', 'select audit.former_key(null::oid, null::jsonb)'),
    ('audit.forwarded_for(text,integer)', 'select audit.forwarded_for(null::text, null::integer)'),
    ('audit.generate(regclass)', 'select audit.generate(null::regclass)'),
    ('audit.guard_partition(regclass)', 'select audit.guard_partition(null::regclass)'),
    ('audit.hash_changes(date,int8multirange)', 'select audit.hash_changes(null::date, null::int8multirange)'),
    ('audit.history_end(oid,text[],text,bigint)', 'select audit.history_end(null::oid, null::text[], null::text, null::bigint)'),
    ('audit.history_ids(text,text)', 'select audit.history_ids(null::text, null::text)'),
    ('audit.holds_json(oid)', 'select audit.holds_json(null::oid)'),
    ('audit.identity_of(oid)', 'select audit.identity_of(null::oid)'),
    ('audit.insert_code(audit.tables,text,text,text)', 'select audit.insert_code(null::audit.tables, null::text, null::text, null::text)'),
    ('audit.is_generated(text)', 'select audit.is_generated(null::text)'),
    ('audit.join_code(text[])', 'select audit.join_code(null::text[])'),
    ('audit.json_text(json)', 'select audit.json_text(null::json)'),
    ('audit.keep_seals()', 'select audit.keep_seals()'),
    ('audit.key_code(oid,text)', 'select audit.key_code(null::oid, null::text)'),
    ('audit.key_columns(oid)', 'select audit.key_columns(null::oid)'),
    ('audit.key_text(oid,text)', 'select audit.key_text(null::oid, null::text)'),
    ('audit.make_partitions(integer)', 'select audit.make_partitions(null::integer)'),
    ('audit.month_is_there(date)', 'select audit.month_is_there(null::date)'),
    ('audit.month_name(date)', 'select audit.month_name(null::date)'),
    ('audit.month_of(timestamp with time zone)', 'select audit.month_of(null::timestamp with time zone)'),
    ('audit.name_default_partition()', 'select audit.name_default_partition()'),
    ('audit.nth_name(oid)', 'select audit.nth_name(null::oid)'),
    ('audit.note_reading(text,jsonb)', 'select audit.note_reading(null::text, null::jsonb)'),
    ('audit.open_gaps()', 'select audit.open_gaps()'),
    ('audit.partition_name(date)', 'select audit.partition_name(null::date)'),
    ('audit.partition_range(oid)', 'select audit.partition_range(null::oid)'),
    ('audit.readable_ip(text)', 'select audit.readable_ip(null::text)'),
    ('audit.readable_json(text)', 'select audit.readable_json(null::text)'),
    ('audit.readable_request()', 'select audit.readable_request()'),
    ('audit.recently()', 'select audit.recently()'),
    ('audit.record_ddl()', 'select audit.record_ddl()'),
    ('audit.record_drop()', 'select audit.record_drop()'),
    ('audit.record_session()', 'select audit.record_session()'),
    ('audit.refresh(oid[])', 'select audit.refresh(null::oid[])'),
    ('audit.refuse_filter(text,text)', 'select audit.refuse_filter(null::text, null::text)'),
    ('audit.renamed(text[],jsonb,jsonb)', 'select audit.renamed(null::text[], null::jsonb, null::jsonb)'),
    ('audit.require_history(text,oid)', 'select audit.require_history(null::text, null::oid)'),
    ('audit.require_reader()', 'select audit.require_reader()'),
    ('audit.retire_seals(date,interval)', 'select audit.retire_seals(null::date, null::interval)'),
    ('audit.retirement_hash(audit.retired_months)', 'select audit.retirement_hash(null::audit.retired_months)'),
    ('audit.retirement_problem()', 'select audit.retirement_problem()'),
    ('audit.row_code(audit.tables,text)', 'select audit.row_code(null::audit.tables, null::text)'),
    ('audit.row_exists(oid,text)', 'select audit.row_exists(null::oid, null::text)'),
    ('audit.seal(bigint)', 'select audit.seal(null::bigint)'),
    ('audit.seal_hash(audit.seals)', 'select audit.seal_hash(null::audit.seals)'),
    ('audit.see_gaps(text)', 'select audit.see_gaps(null::text)'),
    ('audit.stale_tables(oid[])', 'select audit.stale_tables(null::oid[])'),
    ('audit.trigger_code(audit.tables)', 'select audit.trigger_code(null::audit.tables)'),
    ('audit.unsealed_changes(bigint)', 'select audit.unsealed_changes(null::bigint)'),
    ('audit.users_named(text)', 'select audit.users_named(null::text)'),
    ('audit.watch()', 'select audit.watch()'),
    ('audit.with_oddities(text)', 'select audit.with_oddities(null::text)'),
    ('audit.worth_recording(audit.tables)', 'select audit.worth_recording(null::audit.tables)'),
    ('audit.writer()', 'select audit.writer()')
) as refused (name, call);

select is_empty(
    $q$ select p.oid::regprocedure from pg_proc as p
    where p.pronamespace = 'audit'::regnamespace and p.oid::regprocedure::text ~ '^audit\.record_\d+\(\)$'
    and has_function_privilege('anon', p.oid, 'execute') $q$,
    'anon may not use any audit.record_*()'
);
select is_empty(
    $q$ select p.oid::regprocedure from pg_proc as p
    where p.pronamespace = 'audit'::regnamespace and p.oid::regprocedure::text ~ '^audit\.record_\d+\(\)$'
    and has_function_privilege('authenticated', p.oid, 'execute') $q$,
    'owner may not use any audit.record_*()'
);
select is_empty(
    $q$ select p.oid::regprocedure from pg_proc as p
    where p.pronamespace = 'audit'::regnamespace and p.oid::regprocedure::text ~ '^audit\.record_\d+\(\)$'
    and has_function_privilege('authenticated', p.oid, 'execute') $q$,
    'other may not use any audit.record_*()'
);
select is_empty(
    $q$ select p.oid::regprocedure from pg_proc as p
    where p.pronamespace = 'audit'::regnamespace and p.oid::regprocedure::text ~ '^audit\.record_\d+\(\)$'
    and has_function_privilege('authenticated', p.oid, 'execute') $q$,
    'admin may not use any audit.record_*()'
);
select is_empty(
    $q$ select p.oid::regprocedure from pg_proc as p
    where p.pronamespace = 'audit'::regnamespace and p.oid::regprocedure::text ~ '^audit\.record_\d+\(\)$'
    and has_function_privilege('service_role', p.oid, 'execute') $q$,
    'service_role may not use any audit.record_*()'
);

select * from finish();

rollback;
