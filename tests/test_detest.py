"""The 25 non-stiff problems of DETEST, each solved to nine digits."""

import detest
import numpy as np
import pytest

import constrainednn as cx

T = np.linspace(*detest.SPAN, 200)


@pytest.mark.slow
@pytest.mark.parametrize("name", detest.CASES)
def test_detest_problem_is_solved_to_nine_digits(name):
    case = detest.CASES[name]
    args = detest.arguments(case)
    problem = cx.ivp(case.field, case.y0, detest.SPAN, args=args, order=case.order)
    solution = cx.solve(problem)
    assert solution.status == "converged"
    assert detest.error(detest.state_of(solution, case, T), detest.reference(case, T)) < 1e-9


@pytest.mark.parametrize("name", [name for name, case in detest.CASES.items() if case.exact])
def test_detest_closed_forms_agree_with_dop853(name):
    # DOP853 loses up to four of its thirteen digits on the way, most in D5.
    case = detest.CASES[name]
    assert detest.error(detest.classical(case, T), detest.reference(case, T)) < 1e-9
