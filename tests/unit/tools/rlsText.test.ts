import { expect, test } from 'vitest'
import type { CommandExplanation, Explanation, PolicyAnswer } from '../../../tools/rls/explanation.ts'
import { explanationText } from '../../../tools/rls/explainText.ts'

const policy: PolicyAnswer = {
  name: 'Customers see their own orders',
  kind: 'permissive',
  for: 'select',
  roles: ['authenticated'],
  expression: '((user_id = ( SELECT auth.uid() AS uid)) AND (deleted_at IS NULL))',
  rows: { passed: 1, of: 1_200 },
}
const select: CommandExplanation = {
  command: 'select',
  layers: [
    { name: 'role', state: 'passes', text: 'authenticated' },
    { name: 'rls', state: 'warns', text: 'off' },
    { name: 'grant', state: 'stops', text: 'no select' },
  ],
  gates: [{ name: 'using', policies: [policy], forOthers: ['For "guests"'], rows: { passed: 1, of: 1_200 } }],
  notes: ['A note.'],
  verdict: {
    outcome: 'some',
    text: 'Allowed for 1 of 1,200 rows',
    letThroughBy: [],
    toAllow: ['grant select;', 'create policy;'],
  },
}
const explanation: Explanation = {
  table: 'public.orders',
  caller: { named: 'ada@example.com', role: 'authenticated', userId: 'id-of-ada', claims: {} },
  rows: { total: 1_200 },
  commands: [select],
}

function linesOf(changes: Partial<CommandExplanation>, more: Partial<Explanation> = {}): string[] {
  return explanationText({ ...explanation, ...more, commands: [{ ...select, ...changes }] }).split('\n')
}

test('explanationText() shows each layer, each policy and what it comes to, in aligned lines without colours', () => {
  expect(explanationText(explanation)).toBe(`
public.orders as ada@example.com (authenticated, id-of-ada), 1,200 rows

select
  ✓ role      authenticated
  ! rls       off
  ✗ grant     no select
  ✓ using     "Customers see their own orders"  1 of 1,200
              for select to authenticated, using ((user_id = (select auth.uid())) AND (deleted_at IS NULL))
  · using     for other roles: "For "guests""
  · note      A note.
  ✓ Allowed for 1 of 1,200 rows.
    To allow it: grant select;
                 create policy;
`)
})

test('explanationText() of a sample says so', () => {
  const [, head] = linesOf({}, { rows: { total: 5_000_000, sampled: 20_000 } })
  expect(head).toMatch(/, a sample of 20,000 of about 5,000,000 rows$/)
})

test('explanationText() of one row says whether it passes', () => {
  const gate = (passed: number) => ({
    ...select.gates[0]!,
    policies: [{ ...policy, rows: { passed, of: 1 } }],
  })
  expect(linesOf({ gates: [gate(1)] }, { row: '7' }).join('\n')).toMatch(
    /, row 7\n[^]*✓ using .*orders" {2}passes\n/,
  )
  expect(linesOf({ gates: [gate(0)] }, { row: '7' }).join('\n')).toMatch(
    /- using .*orders" {2}does not pass\n/,
  )
})

test.each<[Partial<PolicyAnswer>, RegExp]>([
  [{ rows: { passed: 0, of: 3 } }, /- using .* 0 of 3$/],
  [{ rows: { passed: 0, of: 3 }, kind: 'restrictive' }, /✗ using .* 0 of 3$/],
  [{ rows: { passed: 0, of: 0 } }, /· using .* 0 of 0$/],
  [{ rows: undefined, error: 'permission denied' }, /✗ using .* raises: permission denied$/],
])('explanationText() marks a policy with %j', (answer, expected) => {
  const gate = { ...select.gates[0]!, policies: [{ ...policy, ...answer }] }
  expect(linesOf({ gates: [gate] })).toContainEqual(expect.stringMatching(expected))
})

test('explanationText() says where there is no policy, and of an update only once', () => {
  const none = (name: 'using' | 'select' | 'check') => ({ name, policies: [], forOthers: [] })
  const lines = linesOf({ command: 'update', gates: [none('using'), none('select'), none('check')] })
  expect(lines.filter((line) => line.includes('no policy'))).toEqual([
    '  ✗ using     no policy for update: no row passes',
    '  ✗ select    no policy for select: no row passes',
  ])
})

test('explanationText() takes the brackets off an expression only where they belong together', () => {
  const gate = { ...select.gates[0]!, policies: [{ ...policy, expression: '(a = 1) OR (b = 2)' }] }
  expect(linesOf({ gates: [gate] }).join('\n')).toContain('using ((a = 1) OR (b = 2))')
})
