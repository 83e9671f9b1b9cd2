-- Attempts, submissions and solutions for each day, course and task.
SELECT
    day,
    course,
    task,
    count(*) AS attempts,
    count(*) FILTER (WHERE attempt_type = 'submit') AS submitted,
    count(*) FILTER (WHERE is_correct) AS solved,
    round(
        100.0 * count(*) FILTER (WHERE is_correct)
        / nullif(count(*) FILTER (WHERE attempt_type = 'submit'), 0), 1
    ) AS solved_percent,
    count(DISTINCT user_id) AS users,
    count(DISTINCT user_id) FILTER (WHERE is_correct) AS users_solved
FROM public.learning_attempts
GROUP BY day, course, task
