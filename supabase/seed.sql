-- Demo users (see local/keys.ts for their passwords), products and one order. Safe to run twice.

do $$
declare
    v_user record;
begin
    for v_user in
        select *
        from (values
            ('00000000-0000-4000-8000-00000000000a'::uuid, 'ada@example.com', 'holdfast-ada', 'customer'),
            ('00000000-0000-4000-8000-00000000000b'::uuid, 'grace@example.com', 'holdfast-grace', 'customer'),
            ('00000000-0000-4000-8000-00000000000c'::uuid, 'admin@example.com', 'holdfast-admin', 'admin')
        ) as u (id, email, password, role)
    loop
        insert into auth.users (
            id, aud, role, email, encrypted_password, email_confirmed_at,
            raw_app_meta_data, raw_user_meta_data,
            confirmation_token, recovery_token, email_change, email_change_token_new
        )
        values (
            v_user.id, 'authenticated', 'authenticated', v_user.email,
            extensions.crypt(v_user.password, extensions.gen_salt('bf')), now(),
            jsonb_build_object('provider', 'email', 'providers', jsonb_build_array('email'), 'role', v_user.role),
            jsonb_build_object('sub', v_user.id, 'email', v_user.email, 'email_verified', true, 'phone_verified', false),
            '', '', '', ''
        )
        on conflict (id) do nothing;

        insert into auth.identities (id, user_id, provider, provider_id, identity_data)
        values (
            v_user.id, v_user.id, 'email', v_user.id::text,
            jsonb_build_object('sub', v_user.id, 'email', v_user.email, 'email_verified', true, 'phone_verified', false)
        )
        on conflict (id) do nothing;
    end loop;

    -- Only the platform's own auth server has instances, and it signs in nobody who belongs to none.
    if exists (
        select from information_schema.columns
        where table_schema = 'auth' and table_name = 'users' and column_name = 'instance_id'
    ) then
        execute 'update auth.users set instance_id = ''00000000-0000-0000-0000-000000000000'' where instance_id is null';
    end if;
end;
$$;

insert into public.products (sku, name, price_minor, currency, stock)
values
    ('ROPE-10', 'Kernmantle rope, 10 m', 2450, 'EUR', 1000),
    ('CLEAT-S', 'Dock cleat, small', 890, 'EUR', 1000),
    ('ANCHOR-4', 'Folding anchor, 4 kg', 3900, 'EUR', 25),
    ('LAMP-1', 'Storm lamp', 5600, 'EUR', 3),
    ('FLAG-H', 'Signal flag H', 1200, 'EUR', 0)
on conflict (sku) do nothing;
