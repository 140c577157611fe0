-- What: who may do what in schema private, tried for each role on rows that are made here and rolled back.
-- Why: for `supabase test db`. Generated from tests/rls/matrix.ts by `npm run rls -- --write`: change that.
-- Who: whoever may create pgTAP and write auth.users, as `postgres` of a local project may.

begin;

create extension if not exists pgtap with schema extensions;

set local search_path = public, extensions;

select plan(28);

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
    where c.relnamespace = 'private'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity $q$,
    'row level security is on for every table of schema private'
);

select is_empty(
    $q$ select c.relname from pg_class as c
    where c.relnamespace = 'private'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
    and not c.relispartition
    and 'private.' || c.relname <> all ('{}'::text[]) $q$,
    'the declaration names every table and view of schema private'
);

select is_empty(
    $q$ select p.oid::regprocedure from pg_proc as p
    where p.pronamespace = 'private'::regnamespace
    and 'private.' || regexp_replace(p.oid::regprocedure::text, '^private\.', '') <> all (array[
        'private.order_as_json(uuid)',
        'private.place_order(uuid,jsonb,text,uuid,text,bigint)',
        'private.cancel_order(uuid)',
        'private.record_refund(uuid,text)',
        'private.delete_order(uuid)'
    ]) $q$,
    'the declaration names every function of schema private'
);

select ok(
    has_schema_privilege(role, split_part(name, '.', 1), 'usage') and has_function_privilege(role, name, 'execute'),
    format('%s may use %s', who, name)
)
from (values ('owner', 'authenticated'), ('other', 'authenticated'), ('admin', 'authenticated')) as may (who, role)
cross join unnest(array[
    'private.order_as_json(uuid)',
    'private.place_order(uuid,jsonb,text,uuid,text,bigint)',
    'private.cancel_order(uuid)',
    'private.record_refund(uuid,text)',
    'private.delete_order(uuid)'
]) as name;

select throws_ok(
    format('select pg_temp.run_as(%L, %L)', who, call), '42501', null, format('%s may not use %s', who, name)
)
from unnest(array['anon', 'service_role']) as who
cross join (values
    ('private.order_as_json(uuid)', 'select private.order_as_json(''00000000-0000-4000-8000-0000000000b1'')'),
    ('private.place_order(uuid,jsonb,text,uuid,text,bigint)', 'select private.place_order(''00000000-0000-4000-8000-0000000000ff'', ''[{"sku": "ROPE-10", "quantity": 1}]'', ''EUR'', ''00000000-0000-4000-8000-0000000000ff'', ''ch_fresh'', 2450)'),
    ('private.cancel_order(uuid)', 'select private.cancel_order(''00000000-0000-4000-8000-0000000000b1'')'),
    ('private.record_refund(uuid,text)', 'select private.record_refund(''00000000-0000-4000-8000-0000000000c1'', ''re_forged'')'),
    ('private.delete_order(uuid)', 'select private.delete_order(''00000000-0000-4000-8000-0000000000b1'')')
) as refused (name, call);

select * from finish();

rollback;
